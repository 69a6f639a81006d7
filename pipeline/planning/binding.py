"""Binds every part of an experiment to the others without running anything, and collects what is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pipeline.config import bind_each, in_order
from pipeline.data import Samples
from pipeline.errors import ConfigError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data, evaluated_split, one_view, views_of
from pipeline.experiment.source import SECTIONS, ConfigFile
from pipeline.models import Network
from pipeline.planning.draft import Draft, collected
from pipeline.planning.requirements import MissingSignalsError, Requirements
from pipeline.planning.serving import required_signals
from pipeline.planning.students import bind_networks, bind_training
from pipeline.planning.targets import target_problems
from pipeline.planning.teacher import SOME_CLASSES, bind_teacher


@dataclass(frozen=True)
class Bound:
    """An experiment that fits together.

    data: None if it is not packed yet. requirements: of the students; None without data, students or objectives.
    """

    experiment: ExperimentConfig
    data: Data | None
    teacher: Network
    students: dict[str, Network]
    requirements: Requirements | None


def bind_experiment(source: ConfigFile) -> Bound:
    """Raises ConfigError with all problems: of every section, and of those that are valid with each other.

    MissingSignalsError if other signals would do.
    """
    raw = source.raw()
    valid, problems = bind_each(raw, ExperimentConfig, SECTIONS)
    draft = Draft.of(valid)
    data = _data(draft, problems)
    teacher, shapes = bind_teacher(draft, data, problems)
    students: dict[str, Network] = {}
    per_step: dict[str, int] = {}
    needs: Requirements | None = None
    with collected(problems):
        students = bind_networks(draft, data.classes if data else SOME_CLASSES, teacher, problems)
        per_step = bind_training(draft, data, students, problems)
    with collected(problems):
        problems += target_problems(draft)
    with collected(problems):
        if data and teacher and shapes:
            needs = required_signals(draft, data, teacher, students, per_step, shapes, problems)
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
