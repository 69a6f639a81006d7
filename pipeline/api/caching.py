"""Runs a teacher once over all views of a data set, and keeps its outputs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import nn

from pipeline.api.arguments import (
    arguments_of,
    left_as_it_was,
    one_or_more,
    refuse_labels_beyond,
    require_positive,
)
from pipeline.api.dataset import AnyDataset, samples_of
from pipeline.api.view_lists import ViewList, as_views
from pipeline.config import problems_of
from pipeline.errors import ArgumentError, ConfigError, ModelError, Problem
from pipeline.experiment.data import views_of
from pipeline.models import ModuleNetwork, TeacherNetwork
from pipeline.models.device import Precision, choose_device, choose_precision
from pipeline.progress import Lines, Silent
from pipeline.signals import FeaturesConfig, SignalsConfig
from pipeline.store.location import StorePath, store_path
from pipeline.store.making.caching import make_cache

AS_NETWORK_HINT = "wrap it: as_network(module, blocks=[...], input_size=32, mean=0.5, std=0.25)"

LABELS_HINT = (
    "number the labels from 0 on, give None for what is no class of the teacher, or leave its logits out: "
    "signals={'logits': None, 'features': {'grid': 4}}"
)


def cache_teacher(
    teacher: TeacherNetwork | nn.Module,
    dataset: AnyDataset,
    views: ViewList,
    path: str | Path,
    *,
    features: str | Collection[str] | None = None,
    grid: int = 4,
    signals: SignalsConfig | Mapping[str, Any] | None = None,
    precision: Precision | Literal["auto"] = "auto",
    micro_batch: int = 256,
    device: str | torch.device = "auto",
    rows_per_block: int | None = None,
    replace: bool = False,
    progress: bool = True,
) -> StorePath:
    """Run the teacher once over every view of every image, and keep its outputs in a cache for any number of students.

    Kill it at any moment and call it again: it goes on, and ends with the same bytes. A finished cache of the same
    images, views, teacher and signals is left as it is; one of others is refused, with every difference named. The
    teacher is given back as it was: its device, its memory format, its mode and the maps that it returns.

    Args:
        teacher: what `as_network` makes of a module, what `build_network` returns, or a `TeacherNetwork` of yours.
        dataset: a map-style data set that gives an image (PIL, uint8 tensor [C, H, W], uint8 array [H, W, C]) and
            perhaps a label, without random augmentation; or what `open_packed` returns.
        views: what `make_views` returns, or the operations of a single view, such as `["horizontal-flip"]`.
        path: the folder to write, such as `cache.zarr`, or an address on object storage.
        features: the block, or the blocks, whose maps are kept, by path or as `block2`; None keeps all, () none.
        grid: maps are kept as means over at most grid x grid cells.
        signals: the section `signals` of a configuration, in place of `features` and `grid`: encodings, filters,
            extra signals.
        precision: of the teacher's arithmetic: `bfloat16`, the default of a configuration, or `float32`. `auto` is
            bfloat16 where the device has instructions for it, else float32. It is part of what the cache is.
        micro_batch: images that the teacher sees at once, always: results differ in their last bits between sizes.
        device: `auto`, `cpu`, `cuda`, `cuda:1`.
        rows_per_block: samples in a file; None chooses.
        replace: whether another cache at the path may be replaced.
        progress: whether to print how far it is.

    Returns:
        The path.

    Raises:
        CacheError: another cache is there, a full disk, outputs that are not finite or do not fit their encoding.
        ConfigError: arguments that cannot be used, every problem at once.
        DataError, ModelError: images, labels beyond the teacher's classes, or a module that cannot be used.

    Example:
        >>> import numpy as np, torchvision
        >>> from pipeline import as_network, cache_teacher, make_views
        >>> photos = [(np.full((8, 8, 3), shade, np.uint8), shade % 2) for shade in range(6)]
        >>> model = torchvision.models.resnet18(num_classes=2)
        >>> teacher = as_network(model, ["layer4"], input_size=32, mean=0.5, std=0.25)
        >>> augment = make_views(["horizontal-flip"], count=2)
        >>> path = cache_teacher(teacher, photos, augment, "shades.zarr", progress=False)
    """
    network = require_network(teacher, "the teacher")
    require_positive("cache_teacher", grid=grid, micro_batch=micro_batch, rows_per_block=rows_per_block)
    where = choose_device(str(device))
    with arguments_of("cache_teacher"):
        chosen = choose_precision(precision, where)
        kept = _signals(network, features, grid, signals)
        drawn = as_views(views)
    samples = samples_of(dataset)
    if kept.logits is not None:
        (classes,) = network.taps.get("logits", (0,))
        refuse_labels_beyond(samples.labels, classes, "the teacher", LABELS_HINT)
    with arguments_of("cache_teacher"), left_as_it_was(network):
        return make_cache(
            network,
            samples,
            views_of(samples, drawn, "views"),
            kept,
            target=store_path(path),
            precision=chosen,
            micro_batch=micro_batch,
            device=where,
            rows_per_block=rows_per_block,
            progress=Lines() if progress else Silent(),
            replace=replace,
            notify=print if progress else _ignore_message,
        )


def require_network(module: object, what: str) -> TeacherNetwork:
    """Return `module` if it is a network: of `as_network`, of `build_network`, or a user's own `TeacherNetwork`.

    Args:
        what: the role that an error names, such as "the teacher".

    Raises ModelError for anything else.
    """
    if isinstance(module, TeacherNetwork) and isinstance(module, nn.Module):
        return module
    raise ModelError(
        f"{what} is not a network that returns signals",
        expected="what as_network or build_network returns, or a torch.nn.Module with the members of TeacherNetwork",
        got=type(module).__name__,
        fix=AS_NETWORK_HINT if isinstance(module, nn.Module) else None,
    )


def _ignore_message(text: str) -> None:
    """Do nothing with a message."""


def _signals(
    network: TeacherNetwork,
    features: str | Collection[str] | None,
    grid: int,
    signals: SignalsConfig | Mapping[str, Any] | None,
) -> SignalsConfig:
    """Return what is kept: `signals`, or logits, embedding and the maps of some blocks."""
    if isinstance(signals, SignalsConfig):
        return signals
    if signals is not None:
        if features is not None:
            raise ConfigError([Problem("features", "has no effect beside `signals`", fix="name blocks in one of them")])
        try:
            return SignalsConfig.model_validate(dict(signals) if isinstance(signals, Mapping) else signals)
        except ValidationError as error:
            raise ArgumentError(problems_of(error, "signals"), "cache_teacher") from None
    if features is None:
        taps: tuple[str, ...] = tuple(tap for tap in network.taps if tap.startswith("block"))
    elif isinstance(network, ModuleNetwork):
        taps = tuple(network.tap_of(block) for block in one_or_more(features))
    else:
        taps = tuple(one_or_more(features))
    if not taps:
        return SignalsConfig()
    try:
        return SignalsConfig(features=FeaturesConfig(blocks=taps, grid=grid))
    except ValidationError as error:
        raise ArgumentError(problems_of(error), "cache_teacher") from None
