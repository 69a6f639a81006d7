"""How images are prepared for a network, where its section of the configuration leaves it open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.models import NEUTRAL, NetworkConfig, Preprocessing, expected_by


def expected_by_teacher(teacher: NetworkConfig, training: Mapping[str, Any] | None) -> Preprocessing:
    """The same of a teacher that may not be trained yet. training: its section `teacher_training`, as plain values."""
    weights = teacher.weights
    if training is not None:  # whether it is trained by now or not: its students must be the same
        weights = training.get("start")
        weights = Path(weights) if weights not in (None, "pretrained") else weights
    return expected_by(teacher.model, weights)


def used_by(identity: Mapping[str, Any]) -> Preprocessing:
    """What the teacher of a cache saw. identity: of the cache."""
    teacher = identity["teacher"]
    mean, std = (tuple(teacher[name]) for name in ("mean", "std"))
    return Preprocessing(mean, std, teacher.get("interpolation", NEUTRAL.interpolation))
