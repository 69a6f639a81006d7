"""Describes what an experiment would do: its caches and other artifacts, and the disks that they go to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.experiment.data import Data
from pipeline.planning.disks import Disk
from pipeline.store.backend import RemoteCost, backend_of
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import StorePath


@dataclass(frozen=True)
class Artifact:
    """Describes something that the stages write.

    Args:
        name: for people.
        path: where it lies.
        bytes: of the whole; of networks, their weights.
        remaining: how many of these bytes are still to be written.
    """

    name: str
    path: StorePath
    bytes: int
    remaining: int


@dataclass(frozen=True)
class Plan:
    """Describes what the commands of an experiment would do.

    Args:
        data: the packed data set.
        caches: their layouts, by what they are for.
        artifacts: all that is written, the training cache first.
        disks: those that the artifacts go to.
        runs: how many students are trained.
        views_per_step: how many views of each sample a training batch has.
    """

    data: Data
    caches: dict[str, StoreLayout]
    artifacts: list[Artifact]
    disks: list[Disk]
    runs: int
    views_per_step: int = 1

    @property
    def remote(self) -> RemoteCost | None:
        """Return what the training cache costs on object storage; None if it goes to a disk."""
        return backend_of(self.artifacts[0].path).cost(self.caches["training"], self.views_per_step)

    def facts(self) -> dict[str, Any]:
        """Return the plan as plain values for programs; units, files and bytes are those of the training cache."""
        cache = self.caches["training"]
        return {
            "packed": True,
            "samples": cache.samples,
            "holdout": self.caches["holdout"].samples if "holdout" in self.caches else 0,
            "views": cache.views,
            "units": cache.views * cache.blocks,
            "rows_per_block": cache.rows,
            "bytes_per_view": cache.bytes_per_view,
            "encodings": cache.encodings,
            "files": cache.files,
            "total_bytes": cache.total_bytes,
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
