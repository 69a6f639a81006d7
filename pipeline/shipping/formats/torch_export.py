"""Writes a program of `torch.export`: pixels uint8 [B, C, H, W] in, logits out, for PyTorch without Decant and timm.

`model.pt2` takes any number of images of one size: `torch.export.load("model.pt2").module()(images)`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import ModelError, first_line
from pipeline.shipping.format import Exported, ExportRunner
from pipeline.shipping.student import ShippedStudent

FILE = "model.pt2"
FILES = frozenset((FILE,))
EXACT = True
NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""What torch notes of the code that a program was made from."""


def refusal(student: ShippedStudent) -> str | None:
    """Return None: any student that torch can export is written so."""
    return None


def write(exported: Exported, folder: Path) -> None:
    """Write `model.pt2`. Raises ModelError if torch cannot export the network.

    Args:
        exported: the student.
        folder: is there, and empty.
    """
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            shapes = {"images": {0: torch.export.Dim("batch")}}
            program = torch.export.export(exported.module, (exported.views,), dynamic_shapes=shapes)
            for node in program.graph.nodes:  # lines of code, with paths of this machine
                for note in NOTES:
                    node.meta.pop(note, None)
            torch.export.save(program, folder / FILE)
    except Exception as error:  # what torch raises for what it cannot export is of many kinds
        name = exported.student.described.model
        raise ModelError(f"torch cannot export {name}", got=first_line(error)) from None


def load_runner(exported: Exported, folder: Path, threads: int) -> ExportRunner:
    """Open `model.pt2` in torch.

    Args:
        exported: the student.
        folder: of the files.
        threads: of the arithmetic: those of the process.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(folder / FILE).module()

    def run(views: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(views)
            return logits

    return ExportRunner(run, lambda views: views)
