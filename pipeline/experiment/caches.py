"""The teacher caches of an experiment: where they lie, and what they must be."""

from __future__ import annotations

from typing import Any, NamedTuple

from pipeline.data import Samples
from pipeline.experiment.networks import build
from pipeline.experiment.opened import Data, EvaluateConfig, evaluated_split, one_view
from pipeline.models import TeacherConfig
from pipeline.signals import LogitsConfig, SignalsConfig
from pipeline.store.format.identity import data_identity, encodings_identity, teacher_identity, views_identity
from pipeline.store.location import StorePath
from pipeline.views import Views

EVALUATION_SIGNALS = SignalsConfig(logits=LogitsConfig(encoding="float32"), embedding=None, features=None)
"""What evaluation caches hold: exact logits, for agreement and KL."""


def is_there(path: StorePath) -> bool:
    """Whether anything is published at a cache's path."""
    return path.exists()


def cache_paths(store: StorePath) -> dict[str, StorePath]:
    """A store of training samples, and beside it, with their logits alone, those of holdout and evaluated split.

    `caches/name.zarr` has `caches/name.holdout.zarr` and `caches/name.evaluation.zarr` beside it.
    """
    beside = {what: store.with_name(f"{store.stem}.{what}{store.suffix}") for what in ("holdout", "evaluation")}
    return {"training": store, **beside}


class Cached(NamedTuple):
    """What a cache holds: what the teacher looked at, and what is kept of what it said."""

    samples: Samples
    views: Views
    signals: SignalsConfig


def caches_of(data: Data, signals: SignalsConfig, evaluate: EvaluateConfig) -> dict[str, Cached]:
    """The caches of an experiment, by what they are for, as in `cache_paths`."""
    caches = {"training": Cached(data.training, data.views, signals)}
    beside = {"holdout": data.holdout, "evaluation": Samples(evaluated_split(data.dataset, evaluate))}
    for name, samples in beside.items():
        if samples is not None:
            caches[name] = Cached(samples, one_view(samples, evaluate.operations), EVALUATION_SIGNALS)
    return caches


def required_identity(
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
        wanted = teacher_identity(network, precision=config.precision, micro_batch=config.micro_batch)
        return {**wanted, "interpolation": network.interpolation}, []
    said = {key: value for key, value in config.said("device", "weights").items() if value is not None}
    said |= {"interpolation": config.interpolation} if config.interpolation else {}
    return said, ["teacher.weights"]


def _signals(config: SignalsConfig) -> dict[str, Any]:
    encoding = {kind: {"encoding": encoding} for kind, encoding in encodings_identity(config).items()}
    wanted: dict[str, Any] = {kind: encoding[kind] for kind in ("logits", "embedding") if kind in encoding}
    if config.features is not None:
        wanted |= {"grid": config.features.grid, "filter": config.features.filter}
        blocks = config.features.blocks if isinstance(config.features.blocks, tuple) else ("*",)
        wanted["features"] = dict.fromkeys(blocks, encoding["features"])
    if config.extras:
        wanted["extras"] = {extra.name: encoding[f"extras/{extra.name}"] for extra in config.extras}
    return wanted
