"""Holds what a training ends with."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.models import Network, WithReusedHead
from pipeline.training.history import History, diverging

DIVERGING_HINT = "lower its weight or the learning rate, or look whether its options suit the optimiser"


@dataclass
class TrainingResult:
    """Describes a finished run.

    Args:
        network: the trained network.
        history: one row for each epoch.
        seconds: of training alone, over all sessions.
        images_per_second: over the same time.
        device, precision: of the training.
        best: the epoch whose weights these are, where `patience` keeps the best; else None.
        deterministic: whether the device computed all of it in a way that repeats itself.
    """

    network: Network | WithReusedHead
    history: History
    seconds: float
    images_per_second: float
    device: str
    precision: str
    best: int | None = None
    deterministic: bool = True

    @property
    def summary(self) -> str:
        """Say how long it took and how fast it was; on a line of its own, which terms have grown."""
        said = f"trained in {self.seconds:.0f} s, {self.images_per_second:,.0f} images/s"
        grown = diverging(self.history.rows)
        return f"{said}\nnote: {grown}: {DIVERGING_HINT}" if grown else said
