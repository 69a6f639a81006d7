"""Checks that the optimiser and the scheduler of a network's training can be built."""

from __future__ import annotations

from pipeline.models import Network
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.signals import SignalShapes
from pipeline.training import TrainConfig, build_optimizer, build_scheduler

LOGITS_ALONE = SignalShapes(1)


def require_optimiser(network: Network, training: TrainConfig, key: str) -> None:
    """Raise ConfigError at `key` if the optimiser or the scheduler of `training` cannot be built for a network."""
    labels_alone = ObjectiveSet("none", [ObjectiveEntry(name="hard-label")], LOGITS_ALONE, LOGITS_ALONE, Context(0, 0))
    build_scheduler(build_optimizer(network.model, labels_alone, training, key), training, 1, key)
