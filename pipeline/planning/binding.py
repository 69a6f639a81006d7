"""Binds every part of an experiment to the others without running anything, and collects what is wrong."""

from __future__ import annotations

from dataclasses import replace

from pipeline.config import bind_each, in_order
from pipeline.data import Samples
from pipeline.errors import ConfigError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data, evaluated_split, one_view, views_of
from pipeline.experiment.source import SECTIONS, ConfigFile
from pipeline.planning.bound import Bound
from pipeline.planning.draft import Assembly, Draft, collected
from pipeline.planning.named_teachers import bind_named_teachers
from pipeline.planning.requirements import MissingSignalsError, Requirements
from pipeline.planning.serving import required_signals
from pipeline.planning.students import bind_networks, bind_training
from pipeline.planning.targets import target_problems
from pipeline.planning.teacher import bind_teacher


def bind_experiment(source: ConfigFile) -> Bound:
    """Read a configuration, and bind its parts to each other.

    source: the configuration's file. Raises ConfigError with all problems: of every section, and of those sections that
    are valid with each other. Raises MissingSignalsError if the students could learn from other signals.
    """
    raw = source.raw()
    valid, problems = bind_each(raw, ExperimentConfig, SECTIONS)
    parts = Assembly(Draft.of(valid), problems)
    bind_data(parts)
    bind_teacher(parts)
    bind_named_teachers(parts)
    needs: Requirements | None = None
    with collected(problems):
        bind_networks(parts)
        bind_training(parts)
    with collected(problems):
        problems += target_problems(parts.draft)
    with collected(problems):
        needs = required_signals(parts)
    if needs and needs.missing:
        raise MissingSignalsError(in_order(problems, raw), source.file, needs)
    if problems or parts.teacher is None:
        raise ConfigError(in_order(problems, raw), source.file)
    return Bound(parts.draft, parts.data, parts.teacher, parts.students, needs, parts.notes)


def bind_data(parts: Assembly) -> None:
    """Open the packed data set, if there is one, and draw the views of its samples.

    parts: takes the data set, and all that is wrong with it.
    """
    draft, problems, data = parts.draft, parts.problems, None
    with collected(problems, "data"):
        if draft.data.path.exists() or draft.data.source is None:
            data = Data.open(draft.data, None)
    if data is None:
        return
    parts.data = data
    with collected(problems):
        parts.data = replace(data, views=views_of(data.training, draft.views, "views"))
    with collected(problems):
        one_view(Samples(evaluated_split(data.dataset, draft.evaluate)), draft.evaluate.operations)
    with collected(problems):
        if data.holdout is not None:
            one_view(data.holdout, draft.evaluate.operations)
