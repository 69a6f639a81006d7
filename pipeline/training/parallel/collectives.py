"""Exchanges tensors among the processes of a group, and says plainly if one of them is gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.errors import TrainingError, first_line

HANG_LIMIT = timedelta(minutes=30)
"""How long processes wait for each other within a step."""


class EndedElsewhere(TrainingError):  # noqa: N818
    """Says that another of the processes has ended; that one says why."""


class NotComing(TrainingError):  # noqa: N818
    """Says that another of the processes is there, and does not come to where all are waited for."""


@contextmanager
def all_there() -> Iterator[None]:
    """Raise EndedElsewhere or NotComing for what torch raises if others wait for a process in vain."""
    try:
        yield
    except torch.cuda.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "timed out" in (said := str(error).lower()) or "timeout" in said:
            minutes = HANG_LIMIT.total_seconds() / 60
            fix = (
                "look at what the other processes do (`py-spy dump --pid`), and at their disks and GPUs; then run the "
                "same command again: it goes on from the last checkpoint"
            )
            what = "another of the processes that train together has not ended, and does not come"
            raise NotComing(
                what, expected=f"it within {minutes:.0f} minutes", got=first_line(error), fix=fix
            ) from error
        fix = "see what it said above, if it did; then run the same command again: it goes on from the last checkpoint"
        what = "another of the processes that train together has ended, or could not be reached"
        raise EndedElsewhere(what, got=first_line(error), fix=fix) from error


def gathered_rows(own: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the rows of all processes, in the order of their ranks: [sum of counts, ...].

    Args:
        own: of this process, [its count, ...].
        counts: of rows of each process.
    """
    most = max(counts)
    padded = own.new_zeros((most, *own.shape[1:]))
    padded[: len(own)] = own
    found = [torch.empty_like(padded) for _ in counts]
    with all_there():
        dist.all_gather(found, padded)
    return torch.cat([rows[:count] for rows, count in zip(found, counts, strict=True)])


def add_up(tensor: Tensor) -> None:
    """Make a tensor the sum of those that all processes have.

    Args:
        tensor: contiguous, of one shape everywhere.
    """
    with all_there():
        dist.all_reduce(tensor)


class GatheredRows(torch.autograd.Function):
    """Gathers rows as `gathered_rows` does, with gradients.

    Every process computes the same loss of the whole batch, and takes the gradient of that loss over the number of
    processes, W. Of the gathered rows each process has, then, 1/W of their gradient, and all have the same: W times
    that is the gradient of its own rows. What all processes compute alike (heads, the parameters of objectives) has 1/W
    of its gradient everywhere. So the sum over the processes is right for every parameter.
    """

    @staticmethod
    def forward(context: Any, own: Tensor, counts: Sequence[int], rank: int) -> Tensor:
        """Gather the rows.

        Args:
            context: keeps which rows are those of this process.
            own, counts: as for `gathered_rows`.
            rank: of this process.
        """
        first = sum(counts[:rank])
        context.rows, context.size = slice(first, first + counts[rank]), len(counts)
        return gathered_rows(own, counts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of the rows of this process.

        Args:
            context: of `forward`.
            gradients: of all rows.
        """
        return gradients[0][context.rows] * context.size, None, None
