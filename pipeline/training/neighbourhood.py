"""Puts neighbours of samples into their batches: samples that are near to them in the teacher's cache."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError, Problem
from pipeline.objectives.neighbours import Neighbours
from pipeline.progress import Progress
from pipeline.store.nearest import kept_nearest
from pipeline.training.order import WINDOW_BLOCKS
from pipeline.training.share import even_sizes
from pipeline.training.teacher_outputs import FromCaches

_NEIGHBOUR_STREAM = 0x6E6561726573740A  # "nearest": keeps these random words apart from those of the order


class Neighbourhood:
    """Orders epochs so that every batch is groups of a sample and of neighbours that it has in a cache.

    Args:
        source: reads the caches.
        wanted: how many neighbours, and of which teacher.
        device: where samples are compared when nobody did so before.
        progress: shows how far that is; None shows nothing.

    Raises ConfigError for a cache on object storage of which a part is held at a time: neighbours lie anywhere in it.
    """

    def __init__(
        self, source: FromCaches, wanted: Neighbours, device: torch.device, progress: Progress | None = None
    ) -> None:
        self.source, self.wanted, self.device, self.progress = source, wanted, device, progress
        if source.remote and source.primary.count > WINDOW_BLOCKS * source.primary.rows_per_block:
            what = "batches have neighbours, which lie anywhere in a cache, and one on object storage is read in parts"
            fix = "copy the cache to a folder first, or set `neighbours: 0`"
            raise ConfigError([Problem("objectives", what, "a cache in a folder", str(source.primary.path), fix)])

    @cached_property
    def nearest(self) -> NDArray[np.int32]:
        """Return the nearest samples of each, int32 [N, n], the nearest first. Found at the first call, then kept."""
        source = self.source if self.wanted.teacher is None else self.source.others[self.wanted.teacher]
        return kept_nearest(source.teachers[0], self.wanted.nearest, self.device, self.progress)

    def find(self) -> None:
        """Find `nearest` if nobody did so before, and keep them beside the cache."""
        _ = self.nearest

    def grouped(
        self, order: NDArray[np.int64], steps: Iterable[int], batches: int, seed: int, epoch: int
    ) -> NDArray[np.int64]:
        """Return the samples of an epoch, as many as in its order, in groups of a sample and neighbours of it.

        Args:
            order: of the samples, int64 [N]: some at even distances all through it begin the groups, in this order.
            steps: how many samples each step has, N in all.
            batches: into how many a step is cut. The groups of a batch have 1 + k samples, or fewer where that does not
                divide it, and their sizes differ by one at most.
            seed, epoch: decide alone which of the nearest are drawn: different ones, all equally likely.

        An epoch has as many rows as without neighbours, and begins a group with one in 1 + k samples, in other epochs
        with others. So not every sample comes in every epoch, and one that is near to many comes often.
        """
        most = min(self.wanted.count, self.nearest.shape[1])
        cut = [batch for step in steps for batch in even_sizes(step, min(batches, step))]
        groups = [size for batch in cut for size in even_sizes(batch, -(-batch // (1 + most)))]
        # All through it, since where a cache is large, what is near in the order is near in the cache: of few classes.
        sizes, first = np.array(groups, np.int64), order[np.arange(len(groups)) * len(order) // len(groups)]
        key = np.array([(seed ^ _NEIGHBOUR_STREAM) % 2**64, epoch], np.uint64)
        random = np.random.Generator(np.random.Philox(key=key))
        chosen = random.random((len(first), self.nearest.shape[1])).argsort(axis=1, kind="stable")[:, :most]
        members = np.concatenate((first[:, None], np.take_along_axis(self.nearest[first], chosen, axis=1)), axis=1)
        return members[np.arange(1 + most) < sizes[:, None]].astype(np.int64)
