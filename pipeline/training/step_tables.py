"""Lays numbers that change from step to step on a device: the weights of objectives, and learning rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import Optimizer

from pipeline.objectives import ObjectiveSet
from pipeline.training.batches import Steps

if TYPE_CHECKING:
    from timm.scheduler.scheduler import Scheduler


class StepTable:
    """Holds some numbers of every step of an epoch: one copy to the device in an epoch.

    Args:
        numbers: computes those of some steps, one after the other.
        steps: of the run.
        device: where the table lies.
    """

    def __init__(
        self, numbers: Callable[[Sequence[int]], list[list[float]]], steps: Steps, device: torch.device
    ) -> None:
        self._numbers, self._steps, self._device = numbers, steps, device
        self._epoch = -1
        self._here: list[list[float]] = []
        self._there = torch.empty(0)

    def row(self, index: int) -> Tensor:
        """Return the numbers of step `index` on the device: float32, rounded as in a product with a tensor."""
        return self._of(index)[1]

    def here(self, index: int) -> list[float]:
        """Return the numbers of step `index`, which are not rounded."""
        return self._of(index)[0]

    def _of(self, index: int) -> tuple[list[float], Tensor]:
        epoch, within = divmod(index, self._steps.steps_per_epoch)
        if epoch != self._epoch:
            first = index - within
            self._here = self._numbers(range(first, first + self._steps.steps_per_epoch))
            table = torch.tensor(self._here, dtype=torch.float32)
            cuda = self._device.type == "cuda"
            self._there = (table.pin_memory() if cuda else table).to(self._device, non_blocking=cuda)
            self._epoch = epoch
        return self._here[within], self._there[within]


def weight_table(objectives: ObjectiveSet, steps: Steps, device: torch.device) -> StepTable:
    """Return the weights of all objectives, which schedules change.

    Args:
        objectives: E of them; a row has E numbers, 0 for one that is off.
        steps, device: as of `StepTable`.
    """
    total = len(steps)
    return StepTable(lambda every: [[*objectives.weights(each / total).values()] for each in every], steps, device)


def rate_table(scheduler: Scheduler, optimizer: Optimizer, steps: Steps, device: torch.device) -> StepTable:
    """Return the learning rates of all groups of parameters.

    Args:
        scheduler: sets those of the optimiser; a row has one of each group. It is left where it was.
        optimizer: whose rates they are.
        steps, device: as of `StepTable`.
    """

    def numbers(every: Sequence[int]) -> list[list[float]]:
        found: list[list[float]] = []
        kept = [group["lr"] for group in optimizer.param_groups]
        for each in every:
            scheduler.step_update(each)
            found.append([float(group["lr"]) for group in optimizer.param_groups])
        for group, rate in zip(optimizer.param_groups, kept, strict=True):
            group["lr"] = rate
        return found

    return StepTable(numbers, steps, device)
