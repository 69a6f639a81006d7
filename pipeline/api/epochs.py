"""Numbers the steps of one epoch after the other, for loaders that are made once or anew in every epoch."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class Epochs(Sampler[list[int]]):
    """Numbers the steps of one epoch each time that it is iterated: of the next one, or of a later one of `set_epoch`.

    It is a batch sampler, whose batches are one step each: Accelerate keeps batch samplers, and replaces samplers that
    it does not know. Lightning and Accelerate call `set_epoch`, as they do for a distributed sampler.

    Args:
        steps_per_epoch: steps in an epoch.
        first: the epoch to begin with.

    Example:
        >>> sampler = Epochs(steps_per_epoch=3)
        >>> list(sampler), list(sampler)
        ([[0], [1], [2]], [[3], [4], [5]])
    """

    batch_size, drop_last = 1, False

    def __init__(self, steps_per_epoch: int, first: int = 0) -> None:
        self.steps_per_epoch, self.epoch = steps_per_epoch, first

    @property
    def sampler(self) -> Epochs:
        """Return this object itself: Lightning looks here for `set_epoch`."""
        return self

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        # A generator: a DataLoader with workers makes two iterators and uses one, and only that one may count.
        start = self.epoch * self.steps_per_epoch
        self.epoch += 1
        yield from ([step] for step in range(start, start + self.steps_per_epoch))

    def set_epoch(self, epoch: int) -> None:
        """Go forward to an epoch, from 0 on; an epoch that has begun is not repeated.

        Accelerate counts the epochs of each loader that it prepares from 0 on, and does not count one that is left
        early. It calls this with its own number, which may lie behind.
        """
        self.epoch = max(self.epoch, epoch)
