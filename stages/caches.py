"""The teacher caches of an experiment: where they lie, what they must be, and how they are opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.config import Section
from pipeline.data import Samples
from pipeline.models import TeacherConfig
from pipeline.signals import LogitsConfig, SignalsConfig
from pipeline.store import (
    StoreConfig,
    TeacherCache,
    data_identity,
    encodings_identity,
    teacher_identity,
    views_identity,
)
from pipeline.views import Views
from stages.parts import Data, build

EVALUATION_SIGNALS = SignalsConfig(logits=LogitsConfig(encoding="float32"), embedding=None, features=None)
"""What evaluation caches hold: exact logits, for agreement and KL."""


class CacheConfig(Section):
    """A teacher cache to read instead of the experiment's own, its evaluation caches beside it."""

    path: Path


def cache_paths(store: StoreConfig, caches: tuple[CacheConfig] | None = None) -> dict[str, Path]:
    """The store that training reads, and beside it, with their logits alone, the holdout and evaluated split.

    `caches/name.zarr` has `caches/name.holdout.zarr` and `caches/name.evaluation.zarr` beside it.
    """
    path = caches[0].path if caches else store.path
    beside = {what: path.with_name(f"{path.stem}.{what}{path.suffix}") for what in ("holdout", "evaluation")}
    return {"training": path, **beside}


def checked_logits(
    path: Path, teacher: TeacherConfig, classes: int, samples: Samples, views: Views, *, exact: bool = True
) -> Tensor:
    """The logits [N, K] in the evaluation cache at `path`. Raises CacheMismatch if it is of anything else."""
    cache = TeacherCache.open(path, signals=())
    cache.require(*required(teacher, EVALUATION_SIGNALS, classes, samples, views, exact=exact))
    return cache.read(cache.views[0], np.arange(cache.count)).logits


def open_cache(path: Path, teacher: TeacherConfig, signals: SignalsConfig, data: Data, *, exact: bool) -> TeacherCache:
    """The cache that a student learns from.

    exact: read all pixels and the teacher's weights (where they are) and compare; else trust ids and names.
    Raises CacheNotFound, CacheUnfinished, CacheCorrupt, or CacheMismatch with every differing field.
    """
    cache = TeacherCache.open(path)
    wanted, unchecked = required(teacher, signals, data.classes, data.training, data.views, exact=exact)
    cache.require(wanted, unchecked)
    if unchecked:
        print(f"note: not checked against {path}: {', '.join(unchecked)}")
    return cache


def required(
    teacher: TeacherConfig, signals: SignalsConfig, classes: int, samples: Samples, views: Views, *, exact: bool
) -> tuple[dict[str, Any], list[str]]:
    """The parts of a cache's identity that a run names, and the fields that are left unchecked."""
    network, unchecked = _teacher(teacher, classes, exact)
    seen = data_identity(samples) if exact else {"samples": samples.count, "ids": samples.ids_digest()}
    wanted = {"data": seen, "views": views_identity(views), "teacher": network, "signals": _signals(signals)}
    return wanted, unchecked if exact else [*unchecked, "data.pixels"]


def _teacher(config: TeacherConfig, classes: int, exact: bool) -> tuple[dict[str, Any], list[str]]:
    here = config.weights == "pretrained" or (config.weights is not None and config.weights.exists())
    if exact and here:
        network = build(config, classes)
        return teacher_identity(network, precision=config.precision, micro_batch=config.micro_batch), []
    said = config.model_dump(mode="json", exclude={"device", "weights"}, exclude_none=True)
    return said, ["teacher.weights"]


def _signals(config: SignalsConfig) -> dict[str, Any]:
    encoding = {kind: {"encoding": encoding} for kind, encoding in encodings_identity(config).items()}
    wanted: dict[str, Any] = {kind: encoding[kind] for kind in ("logits", "embedding") if kind in encoding}
    if config.features is not None:
        wanted |= {"grid": config.features.grid, "filter": config.features.filter}
        if isinstance(config.features.blocks, tuple):
            wanted["features"] = dict.fromkeys(config.features.blocks, encoding["features"])
    return wanted
