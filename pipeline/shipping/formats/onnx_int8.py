"""Writes ONNX with weights and activations of 8 bits, quantised statically: ranges are measured on cached views.

`model.onnx` is as that of the format `onnx`, in QDQ form. Convolutions and matrix products are quantised, weights by
channel; what happens to pixels is not. Weights use 7 of 8 bits: without them, processors without VNNI overflow.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.shipping.format import Exported, ExportRunner, library
from pipeline.shipping.formats.onnx import FILE, onnx_runner, write_onnx
from pipeline.shipping.student import ShippedStudent

FILES = frozenset((FILE,))
EXACT = False
BATCH = 16
OPERATORS = ("Conv", "MatMul", "Gemm")


def refusal(student: ShippedStudent) -> str | None:
    """Return None: any student that torch can export is written so."""
    return None


class _Calibration:
    """Hands views to onnxruntime, a batch at a time."""

    def __init__(self, views: Any) -> None:
        self._batches: Iterator[Any] = iter(views.split(BATCH))

    def get_next(self) -> dict[str, Any] | None:
        views = next(self._batches, None)
        return None if views is None else {"images": views.contiguous().numpy()}


def write(exported: Exported, folder: Path) -> None:
    """Write `model.onnx`. Raises ModelError without views to calibrate with.

    Args:
        exported: the student.
        folder: is there, and empty.
    """
    if exported.calibration is None:
        what = "8 bits need views to measure the ranges of values on, and the data set is not at hand"
        fix = "name the student by --student and --objectives, with its --config, where the packed data set is"
        raise ModelError(what, where=exported.student.folder, fix=fix)
    library("onnxruntime", "quantisation")
    onnx = library("onnx", "quantisation")
    quantization = library("onnxruntime.quantization", "quantisation")
    shape_inference = library("onnxruntime.quantization.shape_inference", "quantisation")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it logs advice that is followed here
    try:
        with tempfile.TemporaryDirectory() as scratch:
            plain, ready = Path(scratch, "plain.onnx"), Path(scratch, "ready.onnx")
            write_onnx(exported, plain)
            shape_inference.quant_pre_process(str(plain), str(ready), skip_symbolic_shape=True)
            graph = onnx.load(str(ready)).graph
            quantization.quantize_static(
                str(ready),
                str(folder / FILE),
                _Calibration(exported.calibration),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(OPERATORS),
                nodes_to_exclude=[node.name for node in graph.node if _resizes(node)],
                per_channel=True,
                reduce_range=True,
            )
    finally:
        root.setLevel(level)


def load_runner(exported: Exported, folder: Path, threads: int) -> ExportRunner:
    """Open `model.onnx` in onnxruntime, on the CPU.

    Args:
        exported: the student.
        folder: of the files.
        threads: of the arithmetic.
    """
    return onnx_runner(folder / FILE, threads)


def _resizes(node: Any) -> bool:
    """Tell whether a node is one of the two products that resize pixels."""
    return any(name.endswith(("resize_rows", "resize_columns")) for name in node.input)
