"""Networks as stages build them: of a teacher or student in the configuration, or of one that was trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pipeline.config import parse_yaml
from pipeline.errors import ConfigError, DataError
from pipeline.experiment.sections import StudentConfig
from pipeline.models import (
    NEUTRAL,
    Network,
    NetworkConfig,
    Preprocessing,
    TeacherNetwork,
    WeightsSource,
    WithReusedHead,
    build_network,
    expected_by,
    preprocessing_of,
)
from pipeline.models.build import own_input_size
from pipeline.models.preprocessing import Interpolation, Triple
from pipeline.models.reused import load_trained
from pipeline.signals import SignalShapes
from pipeline.store.format.sections import TeacherIdentity


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


def identity_without_building(config: NetworkConfig, classes: int) -> dict[str, Any] | None:
    """Return what `build(config, classes).identity()` would be, with `interpolation` in any case.

    None if only the built network tells. Its weights are not read.
    """
    size = config.input_size or own_input_size(config.model, config.options)
    if size is None:
        return None
    default = expected_by(config.model, config.weights)
    return {
        "model": config.model,
        "options": dict(config.options),
        "num_classes": classes,
        "input_size": size,
        "mean": list(config.mean or default.mean),
        "std": list(config.std or default.std),
        "interpolation": config.interpolation or default.interpolation,
    }


def expected_by_teacher(teacher: NetworkConfig, training: Mapping[str, Any] | None) -> Preprocessing:
    """Return what a teacher's weights expect of images, whether it is trained by now or not.

    training: its section `teacher_training`, as plain values.
    """
    weights = teacher.weights
    if training is not None:  # whether it is trained by now or not: its students must be the same
        weights = training.get("start")
        weights = Path(weights) if weights not in (None, "pretrained") else weights
    return expected_by(teacher.model, weights)


def used_by(teacher: TeacherIdentity) -> Preprocessing:
    """Return how images were prepared for the teacher of a cache. teacher: as the cache's identity records it."""
    mean, std = (cast(Triple, values) for values in (teacher.mean, teacher.std))
    return Preprocessing(mean, std, cast(Interpolation, teacher.interpolation))


def shapes_of(network: TeacherNetwork) -> SignalShapes:
    """Return the shapes of the signals that a network can give, for objectives."""
    maps = {tap: shape for tap, shape in network.taps.items() if tap.startswith("block") or tap == "final"}
    features = {tap: (shape[0], shape[1], shape[2]) for tap, shape in maps.items()}
    (embedding,) = network.taps.get("embedding", (None,))
    local = isinstance(network, Network) and network.local
    return SignalShapes(network.taps["logits"][0], embedding, features, network.linear, local=local)
