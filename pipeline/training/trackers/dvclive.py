"""Logs with DVCLive: metrics and plots as files, which DVC and its extension for VS Code show."""

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

    package: ClassVar[str] = "dvclive"
    extra: ClassVar[str] = "dvclive"

    name: Literal["dvclive"] = "dvclive"
    folder: LocalPath = Path("dvclive")


class _Live:
    def __init__(self, live: Any) -> None:
        self._live = live

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self._live.step = epoch
        for key, value in values.items():
            self._live.log_metric(key, value)
        self._live.make_summary()

    def close(self, *, failed: bool) -> None:
        self._live.end()


def open_tracker(options: Options, run: TrackedRun) -> Tracker:
    """Open the files of a run. No DVC experiment is saved, and no dvc.yaml is written: Decant writes its own.

    Args:
        options: the folder.
        run: the training.
    """
    from dvclive import Live

    folder = str(options.folder / run.name)
    made = _Live(Live(folder, resume=False, report=None, save_dvc_exp=False, dvcyaml=None))
    for row in run.rows:
        made.log(int(row["epoch"]), {key: value for key, value in row.items() if key != "epoch"})
    return made
