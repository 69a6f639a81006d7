"""Finds where an experiment will write, and files there that Decant did not publish: these are never replaced."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

from pipeline.data.replacing import refuse_foreign_file
from pipeline.errors import DataError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.run_folder import run_files
from pipeline.experiment.runs import RunsConfig
from pipeline.publishing.artifacts import published
from pipeline.publishing.ownership import foreign_files
from pipeline.reporting.ownership import refuse_foreign_evaluation, refuse_foreign_report
from pipeline.store.backend import backend_of

FILES_NAMED = 4
OWN_FOLDER_HINT = "it lies in a folder of its own, such as artifacts/teachers/NAME/teacher.safetensors"
"""The way out where the folder of a teacher's weights is not its own."""


class Target(NamedTuple):
    """Names a folder that a stage publishes.

    Args:
        key: the dotted key of the configuration that names it.
        path: the folder.
        files: the names of those that it will consist of, beside those of every artifact.
    """

    key: str
    path: Path
    files: frozenset[str] = frozenset()


def target_problems(experiment: ExperimentConfig) -> list[Problem]:
    """Return a problem for every folder that an experiment would publish and that holds what is not Decant's."""
    here = Path().resolve()
    problems = [problem for target in folders(experiment) for problem in _folder(target, here)]
    return [*problems, *_nested(experiment), *_in_the_way(experiment.runs)]


def _in_the_way(runs: RunsConfig) -> Iterator[Problem]:
    """Yield a problem for each foreign file in the place of the evaluation or the report; others may lie beside it."""
    for refuse in (
        partial(refuse_foreign_evaluation, runs.evaluation, runs.metrics, runs.details),
        partial(refuse_foreign_report, runs.report),
    ):
        try:
            refuse()
        except DataError as error:
            yield Problem("runs.path", str(error))


def _nested(experiment: ExperimentConfig) -> Iterator[Problem]:
    """Yield a problem for each place that contains another: a folder is published, and replaced, as a whole."""
    runs, data = experiment.runs, Target("data.path", experiment.data.path)
    whole = [*folders(experiment), Target("runs.path", runs.report)]
    every = (data, *whole, Target("runs.path", runs.evaluation))
    resolved = [(target, target.path.resolve()) for target in every]
    above = [(target, frozenset(place.parents)) for target, place in resolved]
    for (outer, place), (inner, parents) in product(resolved[1:-1], above):
        if place in parents:
            what = f"{outer.path} would contain {inner.path} ({inner.key}), and is replaced as a whole"
            yield Problem(
                outer.key, what, fix=OWN_FOLDER_HINT if outer.key == "teacher.weights" else "name another path"
            )


def folders(experiment: ExperimentConfig) -> Iterator[Target]:
    """Yield every folder that the experiment's stages publish."""
    weights = experiment.teacher.weights
    if experiment.teacher_training is not None and isinstance(weights, Path):
        yield Target("teacher.weights", weights.parent, run_files(weights.name))
    for path in experiment.caches_written().values():
        if (folder := backend_of(path).folder) is not None:
            yield Target("store.path", folder)
    for path in experiment.runs.folders(experiment.students, experiment.objectives):
        yield Target("runs.path", path, run_files())


def data_problems(experiment: ExperimentConfig) -> Iterator[Problem]:
    """Yield a problem if a stage of DVC would pack images to a file that was not packed here.

    Args:
        experiment: the configuration.
    """
    if experiment.data.source is None:
        return
    try:
        refuse_foreign_file(experiment.data.path)
    except DataError as error:
        yield Problem("data.path", str(error))


def _folder(target: Target, here: Path) -> Iterator[Problem]:
    teacher = target.key == "teacher.weights"
    own = OWN_FOLDER_HINT if teacher else "name another path"
    path = target.path.resolve()
    if path == here or path in here.parents:
        what = "its folder is the working directory, or contains it"
        yield Problem(target.key, what, got=str(target.path), fix=own)
    elif path.exists() and not path.is_dir():
        yield Problem(target.key, "a folder is made there, and there is a file", got=str(target.path), fix=own)
    elif path.is_dir():
        ours = published(target.path) is not None
        foreign = foreign_files(target.path, target.files) if ours else foreign_files(path)
        if foreign:
            some = ", ".join(foreign[:FILES_NAMED]) + (", ..." if len(foreign) > FILES_NAMED else "")
            what = f"{target.path} holds what Decant did not publish, which would be in the way: {some}"
            fix = f"move it away, or: {own}"
            yield Problem(
                target.key, what, fix=f"{fix}; if it is the teacher, drop teacher_training" if teacher else fix
            )
