"""Builds the networks of an experiment: a teacher or student of the configuration, or one that was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from pipeline.errors import ConfigError, DataError, Problem
from pipeline.experiment.sections import StudentConfig
from pipeline.models import (
    NEUTRAL,
    Network,
    NetworkConfig,
    Preprocessing,
    TeacherConfig,
    TeacherNetwork,
    WeightsSource,
    WithReusedHead,
    build_network,
    expected_by,
    preprocessing_of,
)
from pipeline.models.build import class_names, own_input_size
from pipeline.models.kinds import kind_of
from pipeline.models.other_end import Repooled, WithTextHead
from pipeline.models.preprocessing import Interpolation, PerChannel
from pipeline.models.reused import load_trained
from pipeline.models.text_head import TextEmbeddings
from pipeline.models.trained import refuse_unknown_normalisation
from pipeline.signals import SignalsConfig, SignalShapes
from pipeline.store.format.sections import TeacherIdentity
from pipeline.yaml_text import parse_yaml

ConfigT = TypeVar("ConfigT", bound=NetworkConfig)


def trained_network(
    folder: Path, student: str, classes: int, configured: NetworkConfig | None = None
) -> Network | WithReusedHead:
    """Load a student as it was trained, whatever the configuration contains by now.

    Args:
        folder: of its run.
        student: its name.
        classes: K.
        configured: its section in the user's own configuration, which alone may name code.

    Returns the network, with the head that lies beside its weights, if there is one. Raises DataError if the folder's
    own configuration cannot be read, or names code that the user's does not; ModelError if its weights cannot be read.
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
    said = None if configured is None else (configured.model, dict(configured.options))
    own = said == (config.model, dict(config.options))
    if getattr(kind_of(config.model), "RUNS_CODE", False) and not own:  # a folder may come from anywhere
        raise DataError(
            "the student was built by code that the configuration does not name, and that is not run",
            where=path,
            expected=None if said is None else f"model: {said[0]}, options: {said[1]}",
            got=f"model: {config.model}, options: {dict(config.options)}",
            fix="name the same in the student's section, if you trust the folder",
        )
    update = {"weights": folder / "student.safetensors", "start": None}
    return load_trained(build(prepared_as(config, default).model_copy(update=update), classes), folder)


def prepared_as(config: ConfigT, default: Preprocessing) -> ConfigT:
    """Return a network's section with nothing left open of its preprocessing.

    Args:
        config: the section.
        default: fills in `mean`, `std` and `interpolation` where the section leaves them open.

    Raises ModelError if the weights expect an interpolation that there is not, and the section names none.
    """
    return config.model_copy(
        update={
            "mean": config.mean or default.mean,
            "std": config.std or default.std,
            "interpolation": config.interpolation or default.served(config.model),
        }
    )


def build(
    config: NetworkConfig,
    classes: int,
    *,
    seed: int | None = None,
    start: WeightsSource | None = None,
    offline: bool = False,
    any_classes: bool = False,
) -> Network:
    """Build the network of a section, with its weights.

    Args:
        config: the section; what it leaves open of its preprocessing is what its weights expect.
        classes: K of the data; a network without a classifier has logits of none.
        seed: draws the weights where the section names none; None uses torch's own generator.
        start: weights to begin with, whose classifier need not fit: then it is new and drawn from the seed, and `kept`
            of the network tells so. None takes those that a student's section names.
        offline: random weights take the place of the library's.
        any_classes: K is a guess, since there is no data yet.

    Raises ModelError if the network cannot be built, or if its weights do not fit.
    """
    start = start or (config.start if isinstance(config, StudentConfig) else None)
    refuse_unknown_normalisation(config, start or config.weights)
    config = prepared_as(config, expected_by(config.model, start or config.weights))
    return build_network(
        config.model,
        config.classes_of(classes),
        weights=config.weights,
        input_size=config.input_size,
        mean=config.mean,
        std=config.std,
        interpolation=config.interpolation,
        options=config.options,
        seed=seed,
        start=start,
        match=config.match,
        offline=offline,
        blocks=config.blocks,
        head=None if config.head == "none" else config.head,
        classes=config.classes if isinstance(config, TeacherConfig) else None,
        any_classes=any_classes,
    )


def build_teacher(config: TeacherConfig, names: Sequence[str] | int, **how: Any) -> Network:
    """Build the teacher of a section, as `build` does, with the end that the section gives it.

    Args:
        config: the section `teacher`.
        names: of the classes; or as many as there might be, if they are not known yet.

    Raises DataError if its logits are of no known classes.
    """
    classes = names if isinstance(names, int) else len(names)
    if not classes and (config.head is None or config.text_head is not None):
        fix = (
            "say how many classes the teacher knows: data.classes: N, or the file of their names; "
            "or that it has no classifier: teacher.head: none"
        )
        raise DataError("the packed data set has neither labels nor class names", fix=fix)
    if config.text_head is None:
        network = build(config, classes, **how)
        return network if config.pooling is None else Repooled(network, config.pooling)
    text = TextEmbeddings.read(config.text_head)
    if not isinstance(names, int):
        text.require_classes(names, config.text_head)
    tower = config.model_copy(update={"text_head": None})
    network = build(tower, text.text.shape[1], **how)
    return WithTextHead(network if config.pooling is None else Repooled(network, config.pooling), text)


def refuse_no_embedding(teacher: Network, signals: SignalsConfig) -> None:
    """Raise ConfigError if the embedding of a teacher that has none shall be kept.

    Args:
        teacher, signals: its own.
    """
    if signals.embedding is not None and "embedding" not in teacher.taps:
        what = f"{teacher.name} has no embedding: it does not end in a linear layer"
        fix = "keep none: signals.embedding: null; or name what gives the embedding, of ONNX by `teacher.options`"
        raise ConfigError([Problem("signals.embedding", what, fix=fix)])


def identity_without_building(config: NetworkConfig, classes: int) -> dict[str, Any] | None:
    """Return what `build(config, classes).identity()` would be, with `interpolation` in any case.

    Args:
        config: the network's section; its weights are not read.
        classes: K.

    Returns None if the network must be built to know its input size, or its blocks.
    """
    if config.blocks or config.head or (isinstance(config, TeacherConfig) and config.classes):
        return None
    size = own_input_size(config.model, config.options)  # of no model of another library
    if size is None:
        return None
    size = config.input_size or size
    config = prepared_as(config, expected_by(config.model, config.weights))
    return {
        "model": config.model,
        "options": dict(config.options),
        "num_classes": config.classes_of(classes),
        "input_size": size if isinstance(size, int) else list(size),
        "mean": list(config.mean or ()),
        "std": list(config.std or ()),
        "interpolation": config.interpolation,
    }


def classes_without_building(config: TeacherConfig) -> list[int] | None:
    """Return the indices of the classes that a teacher's section chooses; None if a name is not known.

    Args:
        config: the section, which chooses some.
    """
    names = class_names(config.model) if any(isinstance(each, str) for each in config.classes or ()) else []
    found = [names.index(each) if each in names else each for each in config.classes or ()]
    indices = [each for each in found if isinstance(each, int)]
    return indices if len(indices) == len(found) else None


def expected_by_teacher(teacher: NetworkConfig, training: Mapping[str, Any] | None) -> Preprocessing:
    """Return the preprocessing that a teacher's weights expect, whether it is trained by now or not.

    Args:
        teacher: its section.
        training: the section `teacher_training`, as plain values; None if it is not trained here.
    """
    weights = teacher.weights
    if training is not None:  # whether it is trained by now or not: its students must be the same
        weights = training.get("start")
        weights = Path(weights) if weights not in (None, "pretrained") else weights
    return expected_by(teacher.model, weights)


def recorded_preprocessing(teacher: TeacherIdentity) -> Preprocessing:
    """Return the preprocessing that a cache records of its teacher.

    Args:
        teacher: that part of the cache's identity.
    """
    mean, std = (cast(PerChannel, values) for values in (teacher.mean, teacher.std))
    return Preprocessing(mean, std, cast(Interpolation, teacher.interpolation))


def shapes_of(network: TeacherNetwork) -> SignalShapes:
    """Return the shapes of the signals that objectives may read of a network.

    Args:
        network: a teacher or a student.
    """
    maps = {tap: shape for tap, shape in network.taps.items() if tap.startswith("block") or tap == "final"}
    features = {tap: (shape[0], shape[1], shape[2]) for tap, shape in maps.items()}
    (embedding,) = network.taps.get("embedding", (None,))
    local = isinstance(network, Network) and network.local
    (classes,) = network.taps.get("logits", (0,))
    return SignalShapes(classes, embedding, features, network.linear if classes else None, local=local)
