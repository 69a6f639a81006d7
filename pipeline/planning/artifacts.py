"""Plans what the stages write: how large it becomes, how much is still missing, and which disks take it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.experiment.data import Data
from pipeline.experiment.experiment import Experiment
from pipeline.models import Network
from pipeline.planning.bound import Bound
from pipeline.planning.disks import Disk, DvcCache, device
from pipeline.planning.plan import Artifact, Plan
from pipeline.store.backend import backend_of
from pipeline.store.format.layout import CacheExtent, StoreLayout
from pipeline.store.location import StorePath
from pipeline.store.making.layout_for import layout_for


def plan_experiment(bound: Bound, data: Data, dvc: DvcCache | None) -> Plan:
    """Return the plan of an experiment whose data set is packed.

    Args:
        bound: the experiment.
        data: its packed data set.
        dvc: DVC's cache, which may copy what is written; None without DVC.
    """
    experiment = bound.experiment
    caches = cache_layouts(bound, data)
    artifacts = artifacts_of(bound, caches)
    runs = experiment.runs.folders(experiment.students, experiment.objectives)
    return Plan(data, caches, artifacts, _disks(artifacts, dvc), len(runs), experiment.train.views_per_step)


def cache_layouts(bound: Bound, data: Data) -> dict[str, StoreLayout]:
    """Return the layout of each cache that `cache-teacher` writes, by what the cache is for.

    Args:
        bound: the experiment.
        data: its packed data set.
    """
    experiment = bound.experiment
    chunking = experiment.teacher.micro_batch, experiment.store.rows_per_block, experiment.store.compression
    extents = {
        name: (signals, CacheExtent(samples.count, len(views.numbers), len(views.parameter_names), *chunking))
        for name, (samples, views, signals) in Experiment(experiment, data).caches.items()
    }
    return {name: layout_for(bound.teacher, signals, extent) for name, (signals, extent) in extents.items()}


def artifacts_of(bound: Bound, caches: dict[str, StoreLayout]) -> list[Artifact]:
    """Return what the stages write: caches, the teacher if it is trained here, and the students.

    Args:
        bound: the experiment.
        caches: as of `cache_layouts`.
    """
    experiment = bound.experiment
    artifacts = [
        Artifact(f"{name} cache", path, caches[name].total_bytes, _remaining(path, caches[name]))
        for name, path in experiment.caches_written().items()
    ]
    weights = experiment.teacher.weights
    if experiment.teacher_training is not None and isinstance(weights, Path):
        size = _weights_bytes(bound.teacher)
        artifacts.append(Artifact("teacher", weights.parent, size, 0 if weights.exists() else size))
    size, remaining = 0, 0
    for name, network in bound.students.items():
        folders = experiment.runs.folders([name], experiment.objectives)
        size += _weights_bytes(network) * len(folders)
        remaining += _weights_bytes(network) * sum(not folder.exists() for folder in folders)
    if size:
        artifacts.append(Artifact("students", experiment.runs.path, size, remaining))
    return artifacts


def _remaining(path: StorePath, layout: StoreLayout) -> int:
    """Return how many bytes of a cache are still to be written: none if it is there, else all but its finished units.

    Which of several unfinished caches has these settings is not known without reading all pixels. So the one counts
    that is the furthest, of those with such files.
    """
    backend = backend_of(path)
    return 0 if backend.exists() else layout.total_bytes - backend.finished_bytes(layout)


def _weights_bytes(network: Network) -> int:
    return sum(tensor.nbytes for tensor in network.model.state_dict().values())


def _disks(artifacts: Sequence[Artifact], dvc: DvcCache | None) -> list[Disk]:
    """Return the file systems that the artifacts and DVC's copies of them go to."""
    disks: dict[int, Disk] = {}

    def add(path: Path, needed: int, copied: int) -> None:
        disk = disks.get(device(path)) or Disk.of(path)
        disks[device(path)] = replace(disk, needed=disk.needed + needed, copied=disk.copied + copied)

    for artifact in artifacts:
        if (folder := backend_of(artifact.path).folder) is None:  # on object storage, and DVC keeps no copy of it
            continue
        add(folder, artifact.remaining, 0)
        if dvc is not None and artifact.remaining and not dvc.links(folder):
            add(dvc.folder, 0, artifact.bytes)
    return list(disks.values())
