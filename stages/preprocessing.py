"""How images are prepared for a network, where its section of the configuration leaves it open."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import parse_yaml
from pipeline.errors import ConfigError
from pipeline.models import NEUTRAL, NetworkConfig, Preprocessing, WeightsSource, preprocessing_of


def expected_by(model: str, weights: WeightsSource | None) -> Preprocessing:
    """What the weights of a model expect of images.

    Of random ones (None) nothing; of a file that Decant trained, what its folder says; of others, what timm knows.
    Raises ModelError if there is no such model.
    """
    if weights is None:
        return NEUTRAL
    trained = _trained_on(weights) if isinstance(weights, Path) else None
    return trained or preprocessing_of(model)


def expected_by_teacher(teacher: NetworkConfig, training: Mapping[str, Any] | None) -> Preprocessing:
    """The same of a teacher that may not be trained yet. training: its section `teacher_training`, as plain values."""
    weights = teacher.weights
    if training is not None and not (isinstance(weights, Path) and weights.exists()):
        weights = training.get("start")
        weights = Path(weights) if weights not in (None, "pretrained") else weights
    return expected_by(teacher.model, weights)


def used_by(identity: Mapping[str, Any]) -> Preprocessing:
    """What the teacher of a cache saw. identity: of the cache."""
    teacher = identity["teacher"]
    mean, std = (tuple(teacher[name]) for name in ("mean", "std"))
    return Preprocessing(mean, std, teacher.get("interpolation", NEUTRAL.interpolation))


def _trained_on(weights: Path) -> Preprocessing | None:
    """What the network in a folder of `train-teacher` or `train-student` was trained on; None of any other folder."""
    try:
        raw = parse_yaml((weights.parent / "config.yaml").read_text(encoding="utf-8"), "config.yaml")
        section = raw["teacher"]
        if weights.name == "student.safetensors":
            (student,) = raw["students"].values()
            section = {**student, **{key: student.get(key) or section.get(key) for key in ("mean", "std")}}
        elif raw["teacher_training"] is None or Path(section["weights"]).name != weights.name:
            return None
        keys = ("model", "mean", "std", "interpolation")
        config = NetworkConfig.model_validate({key: section.get(key) for key in keys})
    except (OSError, KeyError, TypeError, ValueError, AttributeError, ConfigError):
        return None
    mean, std = config.mean or NEUTRAL.mean, config.std or NEUTRAL.std
    return Preprocessing(mean, std, config.interpolation or NEUTRAL.interpolation)
