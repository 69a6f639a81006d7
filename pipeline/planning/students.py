"""Binds the students of an experiment: their networks, how they are trained, and what they learn from."""

from __future__ import annotations

import sys

from pipeline.experiment.data import Data
from pipeline.experiment.networks import build, shapes_of
from pipeline.experiment.objective_set import objective_set
from pipeline.experiment.sections import views_learnt
from pipeline.experiment.students import training_of
from pipeline.models import NEUTRAL, Network, Preprocessing
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.planning.draft import Assembly, collected
from pipeline.signals import SignalShapes
from pipeline.training import TrainConfig, build_optimizer, build_scheduler, refuse_too_many_views

NO_SHAPES = SignalShapes(0)


def bind_networks(parts: Assembly) -> None:
    """Build the students that can be built, each normalised as it will be."""
    teacher, problems = parts.teacher, parts.problems
    used = Preprocessing(teacher.mean, teacher.std, teacher.interpolation) if teacher else NEUTRAL
    for name, config in parts.draft.students.items():
        with collected(problems, f"students.{name}"):
            parts.students[name] = build(config.taught_by(config, used), parts.classes, seed=0, offline=True)


def bind_training(parts: Assembly) -> None:
    """Check the settings of every student's training, and find how many views of a sample are in its batches."""
    draft, data, problems = parts.draft, parts.data, parts.problems
    for name, config in draft.students.items():
        with collected(problems):
            training = training_of(draft.train, config, name)
            parts.views_per_step[name] = training.views_per_step
            with collected(problems, note=f" (student {name})"):
                if name in parts.students:
                    optimise(parts.students[name], training, "train")
            with collected(problems, note=f" (student {name})"):
                if data:
                    training.refuse_without("train", labels=data.training.labels is not None, holdout=data.scored)
            with collected(problems, note=f" (student {name})"):
                if draft.objectives and all(config.fresh for config in draft.objectives.values()):
                    continue  # there are as many views as anybody asks for
                views = views_learnt(draft.views, draft.caches)
                refuse_too_many_views(training, sys.maxsize if views is None else views)


def bind_objectives(parts: Assembly, data: Data, teacher: SignalShapes) -> dict[tuple[str, str], frozenset[str]]:
    """Bind every student to every objective set; return the teacher's signals that are read, by both names.

    teacher: the shapes of what is kept of it. No objective is refused for views where their number is unknown.
    """
    needs = {}
    for name, network in parts.students.items():
        views = parts.views_per_step.get(name, sys.maxsize)
        for objectives, config in parts.draft.objectives.items():
            with collected(parts.problems, note=f" (student {name})"):
                bound = objective_set(objectives, config, shapes_of(network), teacher, data, 0, views_per_step=views)
                needs[name, objectives] = bound.needs.teacher
                parts.notes[name, objectives] = bound.notes
    return needs


def optimise(network: Network, training: TrainConfig, key: str) -> None:
    """Build optimiser and scheduler, to see that they can be."""
    nothing = ObjectiveSet("none", [ObjectiveEntry(name="hard-label")], NO_SHAPES, NO_SHAPES, Context(0, 0))
    build_scheduler(build_optimizer(network.model, nothing, training, key), training, 1, key)
