"""The facts of `check`: what an experiment would do, and what every disk must take for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.experiment.data import Data
from pipeline.planning.artifacts import Artifact, artifacts_of, cache_plans
from pipeline.planning.binding import Bound
from pipeline.planning.disks import Disk, DvcCache, device
from pipeline.store.backend import RemoteCost, backend_of
from pipeline.store.format.layout import StoreLayout


@dataclass(frozen=True)
class Plan:
    """What would be done. caches: by what they are for; runs: of students; views_per_step: of each sample."""

    data: Data
    caches: dict[str, StoreLayout]
    artifacts: list[Artifact]
    disks: list[Disk]
    runs: int
    views_per_step: int = 1

    @property
    def remote(self) -> RemoteCost | None:
        """What the training cache costs on object storage; None if it is not there."""
        return backend_of(self.artifacts[0].path).cost(self.caches["training"], self.views_per_step)

    @classmethod
    def of(cls, bound: Bound, data: Data, dvc: DvcCache | None) -> Plan:
        """The plan of an experiment whose data set is packed."""
        experiment = bound.experiment
        caches = cache_plans(bound, data)
        artifacts = artifacts_of(bound, caches)
        runs = experiment.runs.folders(experiment.students, experiment.objectives)
        return cls(data, caches, artifacts, _disks(artifacts, dvc), len(runs), experiment.train.views_per_step)

    def facts(self) -> dict[str, Any]:
        """As plain values, for programs; units, files and bytes are those of the training cache."""
        plan = self.caches["training"]
        return {
            "packed": True,
            "samples": plan.samples,
            "holdout": self.caches["holdout"].samples if "holdout" in self.caches else 0,
            "views": plan.views,
            "units": plan.views * plan.blocks,
            "rows_per_block": plan.rows,
            "bytes_per_view": plan.bytes_per_view,
            "encodings": plan.encodings,
            "files": plan.files,
            "total_bytes": plan.total_bytes,
            "free_bytes": None if self.remote else self.disks[0].free,
            "requests": self.remote and self.remote._asdict(),
            "student_runs": self.runs,
            "artifacts": [
                {"name": a.name, "path": a.path.as_posix(), "bytes": a.bytes, "remaining_bytes": a.remaining}
                for a in self.artifacts
            ],
            "disks": [
                {"path": d.path.as_posix(), "free_bytes": d.free, "needed_bytes": d.needed, "dvc_bytes": d.copied}
                for d in self.disks
            ],
        }


def _disks(artifacts: Sequence[Artifact], dvc: DvcCache | None) -> list[Disk]:
    """The file systems that the artifacts and DVC's copies of them go to."""
    disks: dict[int, Disk] = {}

    def add(path: Path, needed: int, copied: int) -> None:
        disk = disks.get(device(path)) or Disk.of(path)
        disks[device(path)] = replace(disk, needed=disk.needed + needed, copied=disk.copied + copied)

    for artifact in artifacts:
        if (folder := backend_of(artifact.path).folder) is None:  # on nobody's disk, and DVC keeps no copy of it
            continue
        add(folder, artifact.remaining, 0)
        if dvc is not None and artifact.remaining and not dvc.links(folder):
            add(dvc.folder, 0, artifact.bytes)
    return list(disks.values())
