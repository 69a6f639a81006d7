"""Writes a folder that timm itself loads: `timm.create_model("local-dir:FOLDER", pretrained=True)`.

`config.json` has the layout of models on the Hugging Face hub, so the folder can be pushed there as it is. Size, mean,
std, interpolation and crop are in it, so that timm's own transform is the right one. The network is not fused:
`timm.utils.reparameterize_model` does that, once it is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipeline.files import write_atomic
from pipeline.models.network import TimmNetwork
from pipeline.models.weights import save_weights
from pipeline.shipping.format import Exported, ExportRunner, library
from pipeline.shipping.student import ShippedStudent

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
FILES = frozenset((CONFIG, WEIGHTS))
EXACT = True


def refusal(student: ShippedStudent) -> str | None:
    """Return why timm cannot load the student; None if it can."""
    from timm.models import is_model, model_entrypoint

    network = student.network
    if not isinstance(network, TimmNetwork):
        return "only a network of timm can be loaded by timm, without a projection and another classifier at its end"
    name = _architecture(network)
    if not is_model(name) or not model_entrypoint(name).__module__.startswith("timm."):
        return f"timm does not have {name}, which is Decant's own"
    return None


def write(exported: Exported, folder: Path) -> None:
    """Write `config.json` and `model.safetensors`.

    Args:
        exported: the student.
        folder: is there, and empty.
    """
    own = exported.student.own
    save_weights(folder / WEIGHTS, own.model.state_dict())
    write_atomic(folder / CONFIG, json.dumps(_config(exported.student), indent=2, ensure_ascii=False) + "\n")


def load_runner(exported: Exported, folder: Path, threads: int) -> ExportRunner:
    """Open the folder with timm, and its own transform.

    Args:
        exported: the student.
        folder: of the files.
        threads: of the arithmetic: those of the process.
    """
    model = library("timm", "the format").create_model(f"local-dir:{folder}", pretrained=True).eval()
    data = library("timm.data", "the format")
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    grey = len(exported.student.described.mean) == 1
    pixels = exported.student.own.pixels

    def run(inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(inputs)
            return logits

    def from_image(image: NDArray[np.uint8]) -> Tensor:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        prepared: Tensor = transform(picture.convert("L" if grey else "RGB"))
        return prepared[None]

    return ExportRunner(run, pixels, from_image, whole=_crop(exported.student) is not None)


def _architecture(network: TimmNetwork) -> str:
    """Return the name by which timm builds a model, without the name of weights."""
    name = str(network.name)
    if ":" in name:
        name = str(network.model.pretrained_cfg["architecture"])
    return name.partition(".")[0]


def _config(student: ShippedStudent) -> dict[str, Any]:
    own, said = student.own, student.described
    assert isinstance(own, TimmNetwork)
    channels, size = len(said.mean), list(said.input_size)
    crop = _crop(student) or {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": said.interpolation}
    known = own.model.pretrained_cfg
    places = {key: known[key] for key in ("first_conv", "classifier", "pool_size") if known.get(key) is not None}
    arguments = {**said.options, **({"in_chans": channels} if channels != 3 else {})}
    return {
        "architecture": _architecture(own),
        "num_classes": said.num_classes,
        "num_features": own.model.num_features,
        **({"model_args": arguments} if arguments else {}),
        "label_names": list(student.model.classes),
        "pretrained_cfg": {
            "tag": "decant",
            "custom_load": False,
            "input_size": [channels, *size],
            "fixed_input_size": bool(known.get("fixed_input_size", False)),
            **crop,
            "mean": list(said.mean),
            "std": list(said.std),
            "num_classes": said.num_classes,
            **places,
        },
    }


def _crop(student: ShippedStudent) -> Mapping[str, Any] | None:
    """Return how timm's transform does what evaluation does before the network; None if it cannot."""
    said, operations = student.described, student.model.input.operations
    if not operations:
        return {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": said.interpolation}
    first, names = operations[0], [each["name"] for each in operations]
    size = _sides(first.get("size"))
    interpolation = first.get("interpolation", "bilinear")
    if names == ["resize"] and size == tuple(said.input_size):
        return {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": interpolation}
    if names == ["resize", "center-crop"] and isinstance(first["size"], int):
        height, width = said.input_size
        if _sides(operations[1]["size"]) == (height, width) and height == width:
            return {"crop_pct": _share(height, first["size"]), "crop_mode": "center", "interpolation": interpolation}
    return None


def _sides(size: int | Sequence[int] | None) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size or ())


def _share(crop: int, shorter: int) -> float:
    """Return the share of which timm, by rounding down, makes the shorter side again."""
    share = crop / shorter
    return share if math.floor(crop / share) == shorter else crop / (shorter + 0.5)
