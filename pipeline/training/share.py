"""Says which part of every batch a process renders and runs: all of it, or its slice where several train together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Share:
    """Cuts batches among processes that train one network together.

    Args:
        rank: the number of this process, from 0.
        size: how many processes there are.
        local: how many of them are on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 1

    def counts(self, samples: int) -> list[int]:
        """Return how many samples of a batch each process takes: those counts differ by one at most.

        Args:
            samples: in the batch, or that many of anything else.
        """
        return list(even_sizes(samples, self.size))

    def of(self, samples: int) -> range:
        """Return which samples of a batch this process takes.

        Args:
            samples: in the batch.
        """
        counts = self.counts(samples)
        first = sum(counts[: self.rank])
        return range(first, first + counts[self.rank])

    def of_step(self, samples: int, batches: int) -> NDArray[np.int64] | slice:
        """Return which samples of a step this process takes: its slice of each batch of the step.

        Args:
            samples: in the step.
            batches: whose gradients are added up before a step of the optimiser.
        """
        if self.size == 1:
            return slice(None)
        chosen: list[int] = []
        first = 0
        for count in even_sizes(samples, min(batches, samples)):
            chosen += [first + each for each in self.of(count)]
            first += count
        return np.array(chosen, np.int64)


def even_sizes(count: int, parts: int) -> Iterator[int]:
    """Yield the sizes of parts that differ by one at most, the larger ones first.

    Args:
        count: of what is cut.
        parts: into how many.
    """
    size, more = divmod(count, parts)
    for part in range(parts):
        yield size + (part < more)
