"""Builds networks from the names of timm models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import timm
import torch
from torch import nn

import pipeline.models.cifar_resnet  # noqa: F401 - registers the CIFAR models with timm
from pipeline import plugins
from pipeline.errors import ModelError
from pipeline.models.network import Network, Triple
from pipeline.models.weights import fit_weights, load_weights

NEUTRAL_MEAN: Triple = (0.5, 0.5, 0.5)
NEUTRAL_STD: Triple = (0.25, 0.25, 0.25)

_OURS = ("num_classes", "in_chans", "pretrained", "features_only")
_FOREIGN = ("checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay")


def build_network(
    model: str,
    num_classes: int,
    weights: Path | Literal["pretrained"] | None = None,
    input_size: int | None = None,
    mean: Triple | None = None,
    std: Triple | None = None,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Network:
    """The timm model `model` with `num_classes` logits as a network, on the CPU, in training mode.

    `weights`: a safetensors file or torch checkpoint; "pretrained", timm's own, by network where they are not on
    disk; or None, random. `input_size` in pixels, by default `options.img_size` or the size that the model was
    made for. `mean` and `std`, in units of the full range, default to those of timm's weights with "pretrained",
    else to 0.5 and 0.25. `options` are arguments of the timm model. With a `seed`, the initialisation depends on
    nothing else, and the global random generator is left as it was. Raises ModelError.
    """
    options = dict(options or {})
    with _seeded(seed):
        built = _create(model, num_classes, weights == "pretrained", options)
    if weights is not None and weights != "pretrained":
        path = Path(weights)
        fit_weights(built, load_weights(path), path)
    cfg = getattr(built, "pretrained_cfg", None) or {}
    defaults = cfg if weights == "pretrained" else {}
    try:
        return Network(
            built,
            model,
            options,
            num_classes,
            input_size or _own_size(options, cfg),
            mean or defaults.get("mean", NEUTRAL_MEAN),
            std or defaults.get("std", NEUTRAL_STD),
        )
    except Exception as error:  # whatever a model raises on images that it was not made for
        raise ModelError(
            f"{model} does not run on images of {input_size or _own_size(options, cfg)} pixels, or has no taps",
            got=f"{type(error).__name__}: {error}",
            fix="set `input_size`, and `options: {img_size: ...}` for a model of one fixed size",
        ) from error


@contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _create(name: str, num_classes: int, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    if not timm.is_model(name):
        close = plugins.nearest(name, timm.list_models())
        raise ModelError(
            f"unknown model {name!r}",
            expected="a model of timm, or one of ours: " + ", ".join(timm.list_models("cifar_resnet*")),
            got=repr(name),
            fix=f"did you mean {close!r}?" if close else "timm.list_models() names them",
        )
    refused = [key for key in options if key in _OURS + _FOREIGN]
    if refused:
        raise ModelError(
            f"{name}: options that are not for the model",
            where="options." + ", options.".join(refused),
            expected="arguments of the timm model's architecture",
            fix="weights come from `weights`, the number of classes from the data",
        )
    try:
        built: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **options)
    except Exception as error:  # timm's models raise whatever their layers raise
        raise ModelError(
            f"{name} cannot be built" + (" with timm's weights" if pretrained else ""),
            where="options: " + ", ".join(f"{k}={v!r}" for k, v in options.items()) if options else None,
            got=f"{type(error).__name__}: {error}",
            fix="name a weights file: timm's own need a network or its cache" if pretrained else None,
        ) from error
    if not hasattr(built, "forward_intermediates"):
        raise ModelError(f"{name} gives no intermediate maps", fix="choose a model with `forward_intermediates`")
    return built


def _own_size(options: Mapping[str, Any], cfg: Mapping[str, Any]) -> int:
    size = options.get("img_size") or cfg.get("input_size", (3, 224, 224))
    return int(size if isinstance(size, int) else size[-1])
