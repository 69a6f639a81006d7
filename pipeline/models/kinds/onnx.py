"""Runs a teacher that is a file of ONNX, `folder/teacher.onnx`, through onnxruntime: it cannot be trained.

Needs the package `onnxruntime` (`pip install "decant-kd[onnx]"`). Its options are `logits` and `embedding`, names of
outputs. `blocks` are names of outputs that are maps.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ModelError
from pipeline.models.onnx_files import files_beside
from pipeline.models.preprocessing import NEUTRAL, Preprocessing

if TYPE_CHECKING:  # torch takes seconds
    from pipeline.models.base import Network
    from pipeline.models.request import Request

TEACHER_ONLY = True
"""A file is run as it is, with the weights in it: no student is of this kind."""

NAMED = "onnx"
"""How identities name a file, wherever it lies: its digest, that of its weights, says which it is."""


def matches(model: str) -> bool:
    """Tell whether a name is of this kind."""
    return model.endswith(".onnx")


def reads(model: str) -> tuple[Path, ...]:
    """Return the file that `model` names, and those that its weights lie in, if they do not lie in itself."""
    try:
        return (Path(model), *files_beside(Path(model)))
    except (OSError, ModelError):  # it is not there yet, or cannot be run
        return (Path(model),)


def expects(model: str) -> Preprocessing:
    """Return what the file expects of images, which it does not say."""
    return NEUTRAL


def known_classes(model: str) -> tuple[str, ...]:
    """Return no names of classes: what `model` tells apart is not known."""
    return ()


def build(request: Request) -> Network:
    """Build the network of a request. Raises ModelError."""
    from pipeline.models.onnx_network import OnnxNetwork
    from pipeline.models.request import class_indices

    path = Path(request.model)
    own = request.weights in (None, path)
    if not own or request.start is not None or request.head is not None:
        what = "an ONNX file holds its own weights and its own head"
        raise ModelError(what, where=request.model, fix="leave `weights`, `start` and `head` out")
    unknown = [key for key in request.options if key not in ("logits", "embedding")]
    if unknown:
        what = f"{request.model} has no option {unknown[0]!r}"
        raise ModelError(what, where="options", expected="logits, embedding: names of outputs")
    network = OnnxNetwork(
        path,
        request.blocks or (),
        options=request.options,
        input_size=request.input_size,
        mean=request.mean,
        std=request.std,
        interpolation=request.interpolation,
        headless=not request.num_classes,
    )
    if request.classes is not None:
        chosen = class_indices(request.model, request.classes, (), request.num_classes, network.num_classes)
        network.keep_classes(chosen)
    if network.num_classes != request.num_classes and not request.any_classes:
        raise ModelError(
            f"{request.model} has logits of other classes than the data",
            expected=f"{request.num_classes} classes",
            got=f"{network.num_classes}",
            fix="choose classes by `teacher.classes`",
        )
    return network
