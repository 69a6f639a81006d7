"""Finds how images must be prepared for the weights of a network that Decant trained, from its folder."""

from __future__ import annotations

from pathlib import Path

from pipeline.config import parse_yaml
from pipeline.errors import ConfigError, ModelError
from pipeline.models.config import NetworkConfig, WeightsSource
from pipeline.models.kinds import kind_of
from pipeline.models.preprocessing import NEUTRAL, Preprocessing, preprocessing_of


def expected_by(model: str, weights: WeightsSource | None) -> Preprocessing:
    """Return what the weights of a model expect of images.

    Of random ones (None) nothing; of a file that Decant trained, what its folder says; of others, what timm knows.
    Raises ModelError if there is no such model.
    """
    if weights is None:
        return NEUTRAL
    trained = _trained_on(weights) if isinstance(weights, Path) else None
    return trained or preprocessing_of(model)


def refuse_unknown_normalisation(config: NetworkConfig, weights: WeightsSource | None) -> None:
    """Raise ModelError for a file of weights of a module of one's own, if nothing says how its images are normalised.

    config: the network's section. weights: that it begins with.
    """
    named = config.mean is not None and config.std is not None
    if named or not isinstance(weights, Path) or not getattr(kind_of(config.model), "RUNS_CODE", False):
        return
    if _trained_on(weights) is None:
        what = f"it is not known how images were normalised for the weights of {config.model}"
        raise ModelError(what, where=weights, expected="mean and std", fix="name both, as in its training")


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
