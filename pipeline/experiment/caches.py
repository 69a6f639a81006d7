"""The teacher caches that an experiment writes: of which samples and views, with which signals, and their identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.data import Samples
from pipeline.experiment.data import Data, evaluated_split, one_view
from pipeline.experiment.sections import EvaluateConfig
from pipeline.signals import LogitsConfig, SignalsConfig
from pipeline.store.format.identity import data_identity, encodings_identity, views_identity
from pipeline.views import Views

EVALUATION_SIGNALS = SignalsConfig(logits=LogitsConfig(encoding="float32"), embedding=None, features=None)
"""What evaluation caches hold: exact logits, for agreement and KL."""


class Cached(NamedTuple):
    """What a cache holds: the samples and views that the teacher sees, and the signals that are kept of it."""

    samples: Samples
    views: Views
    signals: SignalsConfig

    @classmethod
    def beside(cls, samples: Samples, evaluate: EvaluateConfig) -> Cached:
        """Return what a cache beside the main one holds: the logits of the one view that evaluation sees."""
        return cls(samples, one_view(samples, evaluate.operations), EVALUATION_SIGNALS)

    def required(self, teacher: Mapping[str, Any], *, exact: bool) -> dict[str, Any]:
        """Return what the identity of a cache must say, to be of these samples, views and signals.

        teacher: what it must say of the teacher. exact: of the samples also their pixels, which are all read for that;
        else their number and ids.
        """
        samples = self.samples
        return {
            "data": data_identity(samples) if exact else {"samples": samples.count, "ids": samples.ids_digest()},
            "views": views_identity(self.views),
            "teacher": dict(teacher),
            "signals": _signals(self.signals),
        }


def caches_of(data: Data, signals: SignalsConfig, evaluate: EvaluateConfig) -> dict[str, Cached]:
    """Return the caches of an experiment, by what they are for, as in `cache_paths`."""
    caches = {"training": Cached(data.training, data.views, signals)}
    beside = {"holdout": data.holdout, "evaluation": Samples(evaluated_split(data.dataset, evaluate))}
    return caches | {name: Cached.beside(samples, evaluate) for name, samples in beside.items() if samples is not None}


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
