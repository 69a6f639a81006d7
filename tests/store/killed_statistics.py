"""Computes statistics of a cache in processes that are killed: run in a process that may be forked."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from killed_writers import forked, killed

from pipeline.store import kept, statistics
from pipeline.store.reader import TeacherCache

PLACES = {
    "computing": (statistics.Moments, "merged"),
    "writing": (kept, "sync_directory"),
    "renaming": (Path, "replace"),
}
"""What is about to be called when it ends: a batch was added up, the file has its name, or not yet."""


def run(cache: str, folders: dict[str, Path]) -> None:
    """Compute those of the embedding in each folder, which is named after the place where it ends."""
    for where, folder in folders.items():
        child = forked(lambda where=where, folder=folder: _prepare(where, folder), lambda: _compute(cache))
        assert killed(child), where


def _prepare(where: str, folder: Path) -> None:
    def end(*arguments: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(folder)
    setattr(*PLACES[where], end)
    statistics.NUMBERS_AT_ONCE = 100


def _compute(cache: str) -> None:
    statistics.kept_moments(TeacherCache.open(Path(cache)), "embedding")
