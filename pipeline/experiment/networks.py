"""Networks as stages build them: of a teacher or student in the configuration, or of one that was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from pipeline.config import parse_yaml
from pipeline.errors import ConfigError, DataError
from pipeline.models import (
    NEUTRAL,
    Network,
    NetworkConfig,
    Preprocessing,
    WeightsSource,
    WithReusedHead,
    build_network,
    expected_by,
    preprocessing_of,
)
from pipeline.models.reused import load_trained


class StudentConfig(NetworkConfig):
    """A student: a network, the weights that it begins with, and the keys of `train` that differ for it.

    `start`: `pretrained`, which are timm's own, or a file; its classifier is new where theirs is for other classes.
    None draws all from the seed. `weights` is another word for it.
    """

    start: WeightsSource | None = None
    train: Mapping[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _weights_are_a_start(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or value.get("weights") is None:
            return value
        if value.get("start") is not None:
            raise ValueError("a student's `weights` are those that it starts with: leave them out, or `start`")
        return {**value, "weights": None, "start": value["weights"]}

    def preprocessed_as(self, teacher: NetworkConfig) -> StudentConfig:
        """The same, normalised as the teacher where it does not say how."""
        return self.model_copy(update={"mean": self.mean or teacher.mean, "std": self.std or teacher.std})

    def taught_by(self, teacher: NetworkConfig, used: Preprocessing) -> StudentConfig:
        """The same, normalised as its weights expect, or if it begins without any, as the teacher is.

        used: of the teacher, where its section does not say.
        """
        if self.start is not None:
            return self.open_as(expected_by(self.model, self.start))
        return self.preprocessed_as(teacher).open_as(replace(used, interpolation=NEUTRAL.interpolation))


def trained_network(folder: Path, student: str, classes: int) -> Network | WithReusedHead:
    """The network in a student's folder, as it was trained, whatever the configuration says by now.

    With the head that stands beside it, if there is one. Raises DataError if the folder's own configuration cannot be
    read, ModelError if its weights cannot.
    """
    path = folder / "config.yaml"
    try:
        raw = parse_yaml(path.read_text(encoding="utf-8"), str(path))
        teacher = NetworkConfig(model="teacher", mean=raw["teacher"]["mean"], std=raw["teacher"]["std"])
        config = StudentConfig.model_validate(raw["students"][student]).preprocessed_as(teacher)
        default = preprocessing_of(config.model) if config.start == "pretrained" else NEUTRAL
    except (OSError, KeyError, TypeError, ValueError, ConfigError) as error:
        fix = "train the student again with --replace"
        raise DataError("cannot read how a student was trained", where=path, got=error, fix=fix) from None
    config = config.model_copy(update={"weights": folder / "student.safetensors", "start": None})
    return load_trained(build(config, classes, default=default), folder)


def build(
    config: NetworkConfig,
    classes: int,
    *,
    seed: int | None = None,
    start: WeightsSource | None = None,
    default: Preprocessing | None = None,
    offline: bool = False,
) -> Network:
    """The network of a section, with its weights; without any, random ones from the seed.

    start: weights to begin with, whose classifier need not fit: it is new then, and drawn from the seed; `kept` of the
    network tells. Of a student, its section names them. default: for what the section leaves open of its
    preprocessing; None is what its weights expect. offline: random weights stand for timm's own.
    """
    start = start or (config.start if isinstance(config, StudentConfig) else None)
    default = default or expected_by(config.model, start or config.weights)
    return build_network(
        config.model,
        classes,
        weights=config.weights,
        input_size=config.input_size,
        mean=config.mean or default.mean,
        std=config.std or default.std,
        interpolation=config.interpolation or default.interpolation,
        options=config.options,
        seed=seed,
        start=start,
        match=config.match,
        offline=offline,
    )
