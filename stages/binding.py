"""Binds every part of an experiment to the others without running anything, and collects what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data import Samples
from pipeline.errors import ConfigError, ModelError, Problem
from pipeline.models import Network
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.signals import SignalShapes
from pipeline.store import StorePlan, encodings_identity, expected_plan
from pipeline.training import build_optimizer, build_scheduler
from stages.experiment import Experiment
from stages.learning import objective_set, shapes_of, training_of
from stages.parts import Data, build, evaluated_split, one_view

NO_SHAPES = SignalShapes(0)

SOME_CLASSES = 10
"""Stands for their number as long as there is no packed data set."""


@dataclass(frozen=True)
class Bound:
    """An experiment that fits together. data: None if it is not packed yet; plan: of the cache."""

    data: Data | None
    teacher: Network
    plan: StorePlan


def bind_experiment(experiment: Experiment, where: Path) -> Bound:
    """Raises ConfigError with all problems, and DataError if the packed data set is none."""
    problems: list[Problem] = []
    data, teacher = None, None
    with _collected(problems):
        data = Data.open(experiment.data, experiment.views) if experiment.data.path.exists() else None
    if data:
        with _collected(problems):
            one_view(Samples(evaluated_split(data.dataset, experiment.evaluate)), experiment.evaluate.operations)
        with _collected(problems):
            one_view(data.holdout or data.training, experiment.evaluate.operations)
    with _collected(problems):
        encodings_identity(experiment.signals)
    with _collected(problems, "teacher"):
        teacher = _teacher(experiment, data)
    _students(experiment, data, teacher and teacher[1], problems)
    if problems or teacher is None:
        raise ConfigError(list(dict.fromkeys(problems)), where)
    return Bound(data, *teacher)


def _teacher(experiment: Experiment, data: Data | None) -> tuple[Network, StorePlan]:
    """The teacher, without weights where they are not here yet, and what its cache will consist of."""
    weights = experiment.teacher.weights
    here = data is not None and isinstance(weights, Path) and weights.exists()
    config = experiment.teacher if here else experiment.teacher.model_copy(update={"weights": None})
    network = build(config, data.classes if data else SOME_CLASSES)
    if (training := experiment.teacher_training) is not None:
        nothing = ObjectiveSet("teacher", [ObjectiveEntry(name="hard-label")], NO_SHAPES, NO_SHAPES, Context(0, 0))
        optimizer = build_optimizer(network.model, nothing, training, "teacher_training")
        build_scheduler(optimizer, training, 1, "teacher_training")
    return network, expected_plan(
        network,
        experiment.signals,
        samples=data.training.count if data else 1,
        views=experiment.views.count,
        parameters=len(data.views.parameter_names) if data else 0,
        micro_batch=experiment.teacher.micro_batch,
        rows_per_block=experiment.store.rows_per_block,
        compression=experiment.store.compression,
    )


def _students(experiment: Experiment, data: Data | None, plan: StorePlan | None, problems: list[Problem]) -> None:
    """Bind every student to every objective set and to its optimiser."""
    for name, config in experiment.students.items():
        with _collected(problems, f"students.{name}"):
            training = training_of(experiment.train, config, name)
            network = build(config.model_copy(update={"weights": None}), data.classes if data else SOME_CLASSES)
            if data is None or plan is None:
                continue
            for objectives, entries in experiment.objectives.items():
                with _collected(problems, note=f" (student {name})"):
                    chosen = objective_set(objectives, entries, shapes_of(network), plan.shapes, data, 0)
                    build_scheduler(build_optimizer(network.model, chosen, training), training, 1)


@contextmanager
def _collected(problems: list[Problem], key: str = "", note: str = "") -> Iterator[None]:
    """Add what is raised inside to the problems. key: of what is no problem of the configuration as such."""
    try:
        yield
    except ConfigError as error:
        problems += [replace(problem, what=problem.what + note) for problem in error.problems]
    except ModelError as error:
        problems.append(Problem(key, str(error)))
