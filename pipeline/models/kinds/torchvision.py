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


def matches(model: str) -> bool:
    """Tell whether a name is of this kind."""
    return model.startswith(PREFIX)


def expects(model: str) -> Preprocessing:
    """Return what the weights of a model expect. Raises ModelError if there is no such model."""
    weights = _weights(model)
    if weights is None:
        return NEUTRAL
    expected = weights.transforms()
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

    def create(classes: int) -> nn.Module:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of old models, that their initialisation may change
                made: nn.Module = models.get_model(name, weights=None, num_classes=classes, **request.options)
        except Exception as error:  # torchvision's models raise whatever their layers raise
            raise ModelError(
                f"{request.model} cannot be built",
                where=options_text(request.options),
                got=f"{type(error).__name__}: {error}",
            ) from error
        return made

    def pretrained() -> Mapping[str, Tensor]:
        assert weights is not None
        file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
        if not file.exists():
            refuse_silent(request.model, weights.url, weights.url)
        state: Mapping[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True)
        return state

    categories = known_classes(request.model)
    size = 224 if weights is None else int(weights.transforms().crop_size[0])
    return network_of(
        request, Library(create, size, pretrained if weights is not None else None, len(categories) or None, categories)
    )


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
