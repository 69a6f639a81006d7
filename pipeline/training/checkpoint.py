"""Checkpoints: everything that a run needs to go on as if it had never stopped."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import TrainingError
from pipeline.files import write_atomic

NAME = "checkpoint.pt"


@dataclass
class Checkpoint:
    """The state after `epoch` epochs. Random numbers are keyed by the step and need no state."""

    epoch: int
    model: dict[str, Any]
    objectives: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    history: list[dict[str, float]]
    seconds: float

    def save(self, folder: Path) -> None:
        """Replace the folder's checkpoint, durably and atomically."""
        buffer = io.BytesIO()
        torch.save(vars(self), buffer)
        write_atomic(folder / NAME, buffer.getvalue())

    @classmethod
    def load(cls, folder: Path) -> Checkpoint | None:
        """The folder's checkpoint, or None if there is none. Nothing in it is executed.

        Raises TrainingError if it cannot be read.
        """
        path = folder / NAME
        if not path.exists():
            return None
        try:
            return cls(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:
            raise TrainingError(
                "the checkpoint cannot be read",
                where=path,
                got=str(error).splitlines()[0] if str(error) else type(error).__name__,
                fix="delete it to start this run from the beginning",
            ) from None

    @staticmethod
    def remove(folder: Path) -> None:
        """Forget the checkpoint of a finished run."""
        (folder / NAME).unlink(missing_ok=True)
