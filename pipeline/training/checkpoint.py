"""Saves and loads checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import TrainingError, first_line
from pipeline.files import write_atomic

CHECKPOINT_FILE = "checkpoint.pt"


@dataclass
class Checkpoint:
    """Holds the state of a run after `epoch` epochs. Random numbers are keyed by the step and need no state.

    Args:
        model, objectives, optimizer: their states.
        ema: of the averaged weights; None without.
        history: one row for each epoch.
        seconds: of training until then.
        best: the state of the network after the best epoch, where `patience` keeps the best; else None.
    """

    epoch: int
    model: dict[str, Any]
    objectives: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    history: list[dict[str, float]]
    seconds: float
    best: dict[str, Any] | None = None

    def save(self, folder: Path) -> None:
        """Write the checkpoint into `folder`, durably and atomically, in place of an earlier one."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
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
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or bool(rows) != bool(epoch):
            raise ValueError("the history is not that of its epochs")

    @staticmethod
    def remove(folder: Path) -> None:
        """Delete the checkpoint in the `folder` of a finished run."""
        (folder / CHECKPOINT_FILE).unlink(missing_ok=True)
