"""Saves and loads checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from pipeline.errors import TrainingError, first_line
from pipeline.files import write_atomic

if TYPE_CHECKING:
    from pipeline.training.world import World

CHECKPOINT_FILE = "checkpoint.pt"
SECONDS_AT_RISK = 30.0
"""What a run that is killed may lose, where its epochs are shorter: a checkpoint after each would take longer."""


@dataclass
class Checkpoint:
    """Holds the state of a run after `epoch` epochs. Random numbers are keyed by the step and need no state.

    Args:
        model, objectives, optimizer: their states.
        ema: of the averaged weights; None without.
        history: one row for each epoch.
        seconds: of training until then.
        best: the state of the network after the best epoch, where `patience` keeps the best; else None.
        deterministic: whether the device computed all of it in a way that repeats itself.
        processes: that train together; of one, files do not say it.
    """

    epoch: int
    model: dict[str, Any]
    objectives: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    history: list[dict[str, float]]
    seconds: float
    best: dict[str, Any] | None = None
    deterministic: bool = True
    processes: int = 1

    def save(self, folder: Path) -> None:
        """Write the checkpoint into `folder`, durably and atomically, in place of an earlier one."""
        buffer = io.BytesIO()
        torch.save({name: value for name, value in vars(self).items() if (name, value) != ("processes", 1)}, buffer)
        write_atomic(folder / CHECKPOINT_FILE, buffer.getvalue())

    @classmethod
    def load(cls, folder: Path) -> Checkpoint | None:
        """Load the checkpoint in `folder`; None if there is none. Nothing in the file is executed.

        Raises TrainingError if it cannot be read.
        """
        path = folder / CHECKPOINT_FILE
        if not path.exists():
            return None
        try:
            found = cls(**torch.load(path, map_location="cpu", weights_only=True))
            found._require_written()
            return found
        except Exception as error:
            raise TrainingError(
                "the checkpoint cannot be read",
                where=path,
                got=first_line(error),
                fix="delete it to start this run from the beginning",
            ) from None

    def _require_written(self) -> None:
        """Raise ValueError for a field that `save` does not write so. The content of states is not checked here."""
        states = [self.model, self.objectives, self.optimizer]
        states += [state for state in (self.ema, self.best) if state is not None]
        if not all(isinstance(state, dict) for state in states):
            raise ValueError("a state is no mapping")
        epoch, seconds, rows = self.epoch, self.seconds, self.history
        if not isinstance(epoch, int) or not isinstance(seconds, float | int) or epoch < 0 or not seconds >= 0:
            raise ValueError(f"epoch {epoch!r:.40} after {seconds!r:.40} seconds")
        if not isinstance(self.deterministic, bool):
            raise ValueError("it does not say whether it repeats itself")
        if not isinstance(self.processes, int) or self.processes < 1:
            raise ValueError(f"{self.processes!r:.40} processes")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or bool(rows) != bool(epoch):
            raise ValueError("the history is not that of its epochs")

    def restored(self, folder: Path, epochs: int, processes: int, restore: Callable[[Checkpoint], None]) -> Checkpoint:
        """Have a run go on from here, and return this.

        Args:
            folder: it lies in, for errors.
            epochs, processes: of the run.
            restore: loads the states.

        Raises TrainingError if this is of another run.
        """
        where = f"{folder}/{CHECKPOINT_FILE}"
        if self.processes != processes:
            fix = f"{started_by(self.processes)}, or delete it to start this run from the beginning"
            what, counts = "the checkpoint is of another number of processes", (self.processes, processes)
            raise TrainingError(what, where=where, expected=str(counts[0]), got=str(counts[1]), fix=fix)
        try:
            if self.epoch > epochs:
                raise ValueError(f"epoch {self.epoch} of {epochs}")
            restore(self)
        except Exception as error:  # states of another shape fail in as many ways as there are states
            what, fix = "the checkpoint is of another run", "delete it to start this run from the beginning"
            raise TrainingError(what, where=where, got=first_line(error), fix=fix) from None
        return self

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the checkpoint in the `folder` of a finished run."""
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)


def started_by(processes: int) -> str:
    """Return the text that says how to run a command again by as many processes.

    Args:
        processes: their number.
    """
    if processes == 1:
        return "run it without torchrun"
    return f"run it with `torchrun --standalone --nproc-per-node {processes} -m pipeline ...`"


class CheckpointInterval:
    """Says after which epochs there is to be a checkpoint.

    Args:
        epochs: from one to the next; None chooses by time: less often than every epoch, if a run that is killed then
            loses no more than 30 seconds.
        clock: tells seconds, and is never set back. Training begins now.
    """

    def __init__(self, epochs: int | None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._epochs, self._clock = epochs, clock
        self._kept = self._ended = clock()

    def due(self, epoch: int) -> bool:
        """Tell whether there is to be one after the epoch that has just ended, and count on it.

        Args:
            epoch: its number, from 1.
        """
        now = self._clock()
        # The next epoch will take as long as this one: at its end that much more would be lost.
        longest, self._ended = now - self._ended + now - self._kept, now
        if (longest <= SECONDS_AT_RISK) if self._epochs is None else (epoch % self._epochs != 0):
            return False
        self._kept = now
        return True


def resumed(folder: Path | None, world: World, epochs: int, restore: Callable[[Checkpoint], None]) -> Checkpoint | None:
    """Load the states of the checkpoint in a folder, and return it; None if there is none.

    Args:
        folder: of checkpoints; None keeps none.
        world: what the processes that train together do: the first reads.
        epochs: of the training.
        restore: takes the states.
    """
    if folder is None:
        return None
    found = world.first_does(partial(Checkpoint.load, folder))
    return found and found.restored(folder, epochs, world.share.size, restore)
