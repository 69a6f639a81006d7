"""Finds how images must be prepared for the weights of a network that Decant trained, from its folder."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import ConfigError, ModelError
from pipeline.models.config import NetworkConfig, WeightsSource
from pipeline.models.kinds import kind_of
from pipeline.models.preprocessing import NEUTRAL, Preprocessing, preprocessing_of
from pipeline.yaml_text import parse_yaml


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
    """Raise ModelError for weights of which nothing says how their images are normalised.

    They are files of a module of one's own, and weights of a model whose files leave it open.

    Args:
        config: the network's section.
        weights: that it begins with.
    """
    if config.mean is not None and config.std is not None:
        return
    refuse_untold_normalisation(config.model, weights)
    if isinstance(weights, Path) and getattr(kind_of(config.model), "RUNS_CODE", False):
        _refuse_untold(config.model, weights)


def refuse_untold_normalisation(model: str, weights: WeightsSource | None) -> None:
    """Raise ModelError for weights of a model whose own files should say how images are normalised, and do not.

    Args:
        model: its name.
        weights: that it begins with.
    """
    tells = getattr(kind_of(model), "tells_normalisation", None)
    if weights is not None and tells is not None and not tells(model):
        _refuse_untold(model, weights)


def _refuse_untold(model: str, weights: WeightsSource) -> None:
    if not isinstance(weights, Path) or _trained_on(weights) is None:
        what = f"it is not known how images were normalised for the weights of {model}"
        where = weights if isinstance(weights, Path) else model
        raise ModelError(what, where=where, expected="mean and std", fix="name both, as in its training")


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
