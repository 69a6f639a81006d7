"""What the stages write: how large it becomes, and how much of that is still to be written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.experiment.data import Data
from pipeline.experiment.experiment import Experiment
from pipeline.models import Network
from pipeline.planning.binding import Bound
from pipeline.store.backend import backend_of
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import StorePath
from pipeline.store.making.layout_for import layout_for


@dataclass(frozen=True)
class Artifact:
    """Something that the stages write.

    bytes: of the whole; those of networks are their weights'. remaining: what of them is still to be written.
    """

    name: str
    path: StorePath
    bytes: int
    remaining: int


def cache_plans(bound: Bound, data: Data) -> dict[str, StoreLayout]:
    """What each cache that `cache-teacher` writes will consist of, by what it is for."""
    experiment = bound.experiment
    return {
        name: layout_for(
            bound.teacher,
            signals,
            samples=samples.count,
            views=len(views.numbers),
            parameters=len(views.parameter_names),
            micro_batch=experiment.teacher.micro_batch,
            rows_per_block=experiment.store.rows_per_block,
            compression=experiment.store.compression,
        )
        for name, (samples, views, signals) in Experiment(experiment, data).caches.items()
    }


def artifacts_of(bound: Bound, caches: dict[str, StoreLayout]) -> list[Artifact]:
    """Caches, the teacher if it is trained here, and the students."""
    experiment = bound.experiment
    artifacts = [
        Artifact(f"{name} cache", path, caches[name].total_bytes, _remaining(path, caches[name]))
        for name, path in experiment.caches_written().items()
    ]
    weights = experiment.teacher.weights
    if experiment.teacher_training is not None and isinstance(weights, Path):
        size = _bytes_of(bound.teacher)
        artifacts.append(Artifact("teacher", weights.parent, size, 0 if weights.exists() else size))
    size, remaining = 0, 0
    for name, network in bound.students.items():
        folders = experiment.runs.folders([name], experiment.objectives)
        size += _bytes_of(network) * len(folders)
        remaining += _bytes_of(network) * sum(not folder.exists() for folder in folders)
    if size:
        artifacts.append(Artifact("students", experiment.runs.path, size, remaining))
    return artifacts


def _remaining(path: StorePath, plan: StoreLayout) -> int:
    """Bytes of a cache that are still to be written: nothing if there is one, all but the units of an unfinished one.

    Which of several unfinished ones is of these settings is not known without reading all pixels: the one that is
    the furthest counts, of those with such files.
    """
    backend = backend_of(path)
    return 0 if backend.exists() else plan.total_bytes - backend.finished_bytes(plan)


def _bytes_of(network: Network) -> int:
    return sum(tensor.nbytes for tensor in network.model.state_dict().values())
