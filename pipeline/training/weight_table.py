"""Lays the weights of objectives, which schedules change from step to step, on a device."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.objectives import ObjectiveSet
from pipeline.training.batches import Steps


class WeightTable:
    """Holds the weights of all objectives at every step of an epoch: one copy to the device in an epoch.

    Args:
        objectives: E of them.
        steps: of the run.
        device: where the table lies.
    """

    def __init__(self, objectives: ObjectiveSet, steps: Steps, device: torch.device) -> None:
        self._objectives, self._steps, self._device = objectives, steps, device
        self._epoch = -1
        self._here: list[list[float]] = []
        self._there = torch.empty(0)

    def row(self, index: int) -> Tensor:
        """Return the weights at step `index`: float32 [E], rounded as in a product with a tensor."""
        return self._of(index)[1]

    def on(self, index: int) -> tuple[bool, ...]:
        """Return which objectives have a weight at step `index`."""
        return tuple(weight != 0 for weight in self._of(index)[0])

    def _of(self, index: int) -> tuple[list[float], Tensor]:
        epoch, within = divmod(index, self._steps.steps_per_epoch)
        if epoch != self._epoch:
            first, total = index - within, len(self._steps)
            every = range(first, first + self._steps.steps_per_epoch)
            self._here = [list(self._objectives.weights(each / total).values()) for each in every]
            table = torch.tensor(self._here, dtype=torch.float32)
            cuda = self._device.type == "cuda"
            self._there = (table.pin_memory() if cuda else table).to(self._device, non_blocking=cuda)
            self._epoch = epoch
        return self._here[within], self._there[within]
