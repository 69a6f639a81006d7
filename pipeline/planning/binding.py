"""Binds every part of an experiment to the others without running anything, and collects what is wrong."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pipeline.config import bind_each, in_order
from pipeline.data import Samples
from pipeline.errors import ConfigError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.data import Data, evaluated_split, one_view, views_of
from pipeline.experiment.embedding_scores import labeled_split
from pipeline.experiment.source import SECTIONS, ConfigFile
from pipeline.planning.bound import Bound
from pipeline.planning.draft import Assembly, Draft, collected
from pipeline.planning.named_teachers import bind_named_teachers
from pipeline.planning.requirements import MissingSignalsError, Requirements
from pipeline.planning.serving import required_signals
from pipeline.planning.students import bind_networks, bind_training
from pipeline.planning.targets import target_problems
from pipeline.planning.teacher import bind_teacher
from pipeline.views import SampleViews, Views


def bind_experiment(source: ConfigFile) -> Bound:
    """Read a configuration, and bind its parts to each other.

    Args:
        source: the configuration's file.

    Raises ConfigError with all problems: of every section, and of those sections that are valid with each other. Raises
    MissingSignalsError if the students could learn from other signals.
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

    Args:
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
        _render_one(parts.data.training, parts.data.views, "views", problems)
    with collected(problems):
        reported = Samples(evaluated_split(data.dataset, draft.evaluate))
        _render_one(reported, one_view(reported, draft.evaluate.operations), "evaluate", problems)
    with collected(problems):
        if draft.evaluate.labels_from is not None:
            labeled_split(data.dataset, draft.evaluate.labels_from)
    with collected(problems):
        if data.holdout is not None:
            one_view(data.holdout, draft.evaluate.operations)


def _render_one(samples: Samples, views: Views, section: str, problems: list[Problem]) -> None:
    """Render a view: what an operation cannot do with these images, such as their channels, only applying it tells."""
    with collected(problems, f"{section}.operations"):
        SampleViews(samples, views).draw(views.numbers[0], np.zeros(1, np.int64))
