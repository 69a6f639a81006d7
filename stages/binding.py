"""Binds every part of an experiment to the others without running anything, and collects what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.config import bind_each, in_order
from pipeline.data import Samples
from pipeline.errors import ConfigError, Problem
from pipeline.models import Network
from pipeline.signals import SignalShapes
from pipeline.store import encodings_identity, expected_plan
from stages.bound_students import bind_networks, bind_training, optimise
from stages.caches import is_there
from stages.draft import Draft, collected
from stages.experiment import Experiment
from stages.inputs import SECTIONS, Source
from stages.networks import build
from stages.parts import Data, evaluated_split, one_view, views_of
from stages.preprocessing import expected_by_teacher
from stages.requirements import MissingSignalsError, Requirements
from stages.serving import required

SOME_CLASSES = 10
"""Stands for their number as long as there is no packed data set."""


@dataclass(frozen=True)
class Bound:
    """An experiment that fits together.

    data: None if it is not packed yet. requirements: of the students; None without data, students or objectives.
    """

    experiment: Experiment
    data: Data | None
    teacher: Network
    students: dict[str, Network]
    requirements: Requirements | None


def bind_experiment(source: Source) -> Bound:
    """Raises ConfigError with all problems: of every section, and of those that are valid with each other.

    MissingSignalsError if other signals would do.
    """
    raw = source.raw()
    valid, problems = bind_each(raw, Experiment, SECTIONS)
    draft = Draft.of(valid)
    data = _data(draft, problems)
    teacher, shapes = _teacher(draft, data, problems)
    students: dict[str, Network] = {}
    per_step: dict[str, int] = {}
    needs: Requirements | None = None
    with collected(problems):
        students = bind_networks(draft, data.classes if data else SOME_CLASSES, teacher, problems)
        per_step = bind_training(draft, students, problems)
    with collected(problems):
        if data and teacher and shapes:
            needs = required(draft, data, teacher, students, per_step, shapes, problems)
    if needs and needs.missing:
        raise MissingSignalsError(in_order(problems, raw), source.file, needs)
    if problems or teacher is None:
        raise ConfigError(in_order(problems, raw), source.file)
    return Bound(draft, data, teacher, students, needs)


def _data(draft: Draft, problems: list[Problem]) -> Data | None:
    """The packed data set; None if it is not packed yet or not what it should be."""
    data = None
    with collected(problems, "data"):
        if draft.data.path.exists() or draft.data.source is None:
            data = Data.open(draft.data, None)
    if data is None:
        return None
    with collected(problems):
        data = replace(data, views=views_of(data.training, draft.views, "views"))
    with collected(problems):
        one_view(Samples(evaluated_split(data.dataset, draft.evaluate)), draft.evaluate.operations)
    with collected(problems):
        if data.holdout is not None:
            one_view(data.holdout, draft.evaluate.operations)
    return data


def _teacher(draft: Draft, data: Data | None, problems: list[Problem]) -> tuple[Network | None, SignalShapes | None]:
    """The teacher, without weights where they are not here yet, and the shapes of what is kept of it."""
    network, shapes = None, None
    with collected(problems):
        encodings_identity(draft.signals)
    with collected(problems, "teacher"):
        config = draft.teacher
        here = data is not None and (config.weights == "pretrained" or (config.weights and config.weights.exists()))
        section = draft.teacher_training
        default = expected_by_teacher(config, section.model_dump() if section else None)
        config = config if here else config.model_copy(update={"weights": None})
        network = build(config, data.classes if data else SOME_CLASSES, default=default, offline=True)
    with collected(problems):
        _weights_will_be_there(draft)
    if network is not None:
        with collected(problems):
            if training := draft.teacher_training:
                optimise(network, training, "teacher_training")
        with collected(problems):
            shapes = expected_plan(network, draft.signals, samples=1, views=1, parameters=0, micro_batch=1).shapes
    return network, shapes


def _weights_will_be_there(draft: Draft) -> None:
    """Raises ConfigError if the teacher's weights are nowhere, nothing makes them, and its cache is not there."""
    weights = draft.teacher.weights
    if weights == "pretrained" or (weights is not None and (weights.exists() or draft.teacher_training)):
        return
    if draft.caches is None and not is_there(draft.store.path):
        what = "a teacher needs weights" if weights is None else "there is no such file, and nothing that makes it"
        fix = "name its file, or add `teacher_training: {}` with a file for `pipeline train-teacher` to write"
        raise ConfigError([Problem("teacher.weights", what, got=str(weights) if weights else None, fix=fix)])
