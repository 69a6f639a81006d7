"""Declares objectives that compare every sample by itself, so that each sample has a value of its own."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from pipeline.objectives.base import Batch, Objective
from pipeline.signals import Signals


class SampleObjective(Objective):
    """Compares the signals of every sample by itself: its terms are means of values that the samples have.

    A set can then leave a teacher out for some images and keep it for others (`teacher_dropping`).
    """

    @abstractmethod
    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the terms of every sample, [B] each.

        Args:
            student, teacher, batch, progress: as for `Objective.forward`.
        """

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the means of the terms over the batch."""
        return {term: value.mean() for term, value in self.of_samples(student, teacher, batch, progress).items()}
