"""Builds torchvision's classifiers by the names that it registers: `torchvision/resnet18`.

A tag behind a dot says which of torchvision's weights are meant: `torchvision/resnet50.IMAGENET1K_V1`. None are its
default ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ModelError, did_you_mean
from pipeline.models.preprocessing import NEUTRAL, Preprocessing
from pipeline.models.pretrained import refuse_silent

if TYPE_CHECKING:  # torch takes seconds
    from torch import Tensor, nn

    from pipeline.models.base import Network
    from pipeline.models.request import Request

PREFIX = "torchvision/"

EXTRA_HEADS = {"inception_v3": ("AuxLogits.",), "googlenet": ("aux1.", "aux2.")}
"""Models that have further classifiers while they are trained, and the names of those: they are left out. Nothing
learns from them here, and they want larger images than the model itself. The weights of these models are for images
from -1 to 1, into which torchvision's modules bring those that they get."""

HALF = (0.5, 0.5, 0.5)
"""Mean and standard deviation that bring images to -1 to 1."""


def matches(model: str) -> bool:
    """Tell whether a name is of this kind."""
    return model.startswith(PREFIX)


def expects(model: str) -> Preprocessing:
    """Return what the weights of a model expect. Raises ModelError if there is no such model."""
    weights = _weights(model)
    if weights is None:
        return NEUTRAL
    expected = weights.transforms()
    if _name(model) in EXTRA_HEADS:
        return Preprocessing(HALF, HALF, "bilinear")
    bicubic = expected.interpolation.value == "bicubic"
    return Preprocessing(tuple(expected.mean), tuple(expected.std), "bicubic" if bicubic else "bilinear")


def reads(model: str) -> tuple[Path, ...]:
    """Return no files for any `model`: torchvision is installed."""
    return ()


def known_classes(model: str) -> tuple[str, ...]:
    """Return the names of the classes of a model's weights, in order. Raises ModelError if there is no such model."""
    weights = _weights(model)
    return () if weights is None else tuple(weights.meta["categories"])


def build(request: Request) -> Network:
    """Build the network of a request. Raises ModelError."""
    import torch
    from torchvision import models

    from pipeline.models.request import Library, network_of, options_text

    name, weights = _name(request.model), _weights(request.model)
    extra = () if request.options.get("aux_logits") else EXTRA_HEADS.get(name, ())

    if name in EXTRA_HEADS and request.options.get("transform_input") and (request.mean, request.std) == (HALF, HALF):
        raise ModelError(
            f"{request.model} would bring images to -1 to 1 twice",
            where="options.transform_input",
            fix="leave it out, or name `mean: [0.485, 0.456, 0.406]` and `std: [0.229, 0.224, 0.225]`",
        )

    def create(classes: int) -> nn.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old models, that their initialisation may change
                options = {**({"aux_logits": False} if extra else {}), **request.options}
                made: nn.Module = models.get_model(name, weights=None, num_classes=classes, **options)
        except Exception as error:  # torchvision's models raise whatever their layers raise
            raise ModelError(
                f"{request.model} cannot be built",
                where=options_text(request.options),
                got=f"{type(error).__name__}: {error}",
            ) from error
        if len(request.mean) != 3:
            _take_channels(made, len(request.mean))
        return made

    def pretrained() -> Mapping[str, Tensor]:
        assert weights is not None
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        if not file.exists():
            refuse_silent(request.model, weights.url, weights.url)
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
        return without_extra(None, state)

    def without_extra(module: nn.Module | None, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {key: value for key, value in state.items() if not key.startswith(extra)} if extra else state

    categories = known_classes(request.model)
    size = 224 if weights is None else int(weights.transforms().crop_size[0])
    read = pretrained if weights is not None else None
    return network_of(request, Library(create, size, read, len(categories) or None, categories, renamed=without_extra))


def _take_channels(module: nn.Module, channels: int) -> None:
    """Give a module of torchvision's a first convolution for images of other channels than three.

    Its random weights are smaller by as much as there are more of them: what they sum up to is as large.
    """
    from torch import nn

    path, old = next((path, each) for path, each in module.named_modules() if isinstance(each, nn.Conv2d))
    size, stride, padding = old.kernel_size, old.stride, old.padding
    new = nn.Conv2d(channels, old.out_channels, size, stride, padding, bias=old.bias is not None)  # type: ignore[arg-type]
    nn.init.normal_(new.weight, std=float(old.weight.detach().std()) * (3 / channels) ** 0.5)
    if new.bias is not None and old.bias is not None:
        new.bias.data.copy_(old.bias.detach())
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)


def _name(model: str) -> str:
    """The name that torchvision has for a model of its own. Raises ModelError if it has none."""
    from torchvision import models

    name = model.removeprefix(PREFIX).partition(".")[0]
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(
            f"unknown model {model!r}",
            expected="a classifier of torchvision",
            got=repr(name),
            fix=did_you_mean(name, known) or "torchvision.models.list_models(module=torchvision.models) names them",
        )
    return name


def _weights(model: str) -> Any:
    """The member of torchvision's enumeration of weights that a model's name means; None if there are none."""
    from torchvision import models

    tag = model.partition(".")[2]
    weights = models.get_model_weights(_name(model))
    known = [each.name for each in weights]
    if tag and tag not in known:
        raise ModelError(
            f"torchvision has no weights {tag!r} of {model.partition('.')[0]}",
            expected="one of " + ", ".join(known),
            got=repr(tag),
            fix=did_you_mean(tag, known),
        )
    return weights[tag] if tag else getattr(weights, "DEFAULT", None)
