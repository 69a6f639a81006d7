"""Writes ONNX: pixels uint8 [B, C, H, W] in, logits [B, K] out; normalisation and resizing are inside.

`model.onnx` has the input `images`, with any number of images of one size, and the output `logits`.
"""

from __future__ import annotations

import functools
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError, first_line
from pipeline.shipping.format import Exported, ExportRunner, library
from pipeline.shipping.student import ShippedStudent

FILE = "model.onnx"
FILES = frozenset((FILE,))
EXACT = True


def refusal(student: ShippedStudent) -> str | None:
    """Return None: any student that torch can export is written so."""
    return None


def write(exported: Exported, folder: Path) -> None:
    """Write `model.onnx`. Raises ModelError if torch cannot translate the network.

    Args:
        exported: the student.
        folder: is there, and empty.
    """
    write_onnx(exported, folder / FILE)


def load_runner(exported: Exported, folder: Path, threads: int) -> ExportRunner:
    """Open `model.onnx` in onnxruntime, on the CPU.

    Args:
        exported: the student.
        folder: of the files.
        threads: of the arithmetic.
    """
    return onnx_runner(folder / FILE, threads)


def write_onnx(exported: Exported, path: Path) -> None:
    """Write a module as one file of ONNX. Raises ModelError if torch cannot translate it.

    Args:
        exported: has the module.
        path: of the file.
    """
    library("onnx", "export to ONNX").save(_translated(exported), str(path))


@functools.lru_cache(maxsize=1)  # the formats of one student begin with the same model, which takes seconds
def _translated(exported: Exported) -> Any:
    for package in ("onnx", "onnxscript"):
        library(package, "export to ONNX")
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's and onnxscript's of one another
            program: Any = torch.onnx.export(
                exported.module,
                (exported.views,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                verbose=False,
            )
            model = program.model_proto
            _leave_out_notes(model)
            return model
    except Exception as error:  # what torch raises for what it cannot translate is of many kinds
        name = exported.student.described.model
        raise ModelError(f"torch cannot write {name} as ONNX", got=first_line(error)) from None
    finally:
        quiet.setLevel(level)


def _leave_out_notes(model: Any) -> None:
    """Remove what torch notes for its developers: lines of code with paths of this machine, many times the weights."""
    graph = model.graph
    for each in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        each.ClearField("metadata_props")
        each.ClearField("doc_string")


def onnx_runner(path: Path, threads: int) -> ExportRunner:
    """Open a file of ONNX in onnxruntime, on the CPU.

    Args:
        path: of the file.
        threads: of the arithmetic.
    """
    runtime = library("onnxruntime", "running ONNX")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(views: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": views.numpy()})[0])

    return ExportRunner(run, lambda views: views.contiguous())
