"""Writes event files for TensorBoard: `tensorboard --logdir tensorboard` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pipeline.config import LocalPath
from pipeline.training.tracking import TrackedRun, Tracker, TrackerOptions


class Options(TrackerOptions):
    """Declares where the files go.

    Args:
        folder: that of all runs; each has a folder of its name inside.
    """

    package: ClassVar[str] = "tensorboard"
    extra: ClassVar[str] = "tensorboard"

    name: Literal["tensorboard"] = "tensorboard"
    folder: LocalPath = Path("tensorboard")


class _Events:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, epoch)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:
        self._writer.close()


def open_tracker(options: Options, run: TrackedRun) -> Tracker:
    """Open the event files of a run; what an interrupted run wrote after its last checkpoint is hidden.

    Args:
        options: the folder.
        run: the training.
    """
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(options.folder / run.name), purge_step=len(run.rows) + 1)
    return _Events(writer)
