"""Chooses units that are computed together, because they are views of the same images: each is decoded once for all."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pipeline.errors import during
from pipeline.store.format.arrays import Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.views import view_of

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.data.split import Images

VIEWS_AT_ONCE = 8
"""Views that one decoding serves. With so many, decoding is a small part of what a view costs."""

BYTES_AT_ONCE = 2 << 30
"""Of the units that are filled at once; the memory of a machine that has a teacher in it."""

SECONDS_AT_ONCE = 120.0
"""Of work in the units that are filled at once: a process that is killed loses them."""


class UnitGroups:
    """Yields units in groups that are computed together: views of one row block, so that its images are decoded once.

    Args:
        units: to be computed, in the order of views and row blocks.
        most: units in a group.
        clock: tells seconds.

    Where `most` is more than one, row blocks come one after the other, and a group has as many views of one as take two
    minutes: one, as long as it is not known how long they take.
    """

    def __init__(self, units: Collection[Unit], most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._units, self._most, self._clock = units, most, clock
        self._begin, self._finished = clock(), 0

    def __iter__(self) -> Iterator[tuple[Unit, ...]]:
        """Yield the groups; each is chosen when it is asked for."""
        return groups_of(self._units, self._most, self._size)

    def finish(self) -> None:
        """Note that one more unit is finished."""
        self._finished += 1

    def _size(self) -> int:
        """Return how many units the next group has."""
        if not self._finished:
            return 1
        seconds = (self._clock() - self._begin) / self._finished
        return int(SECONDS_AT_ONCE / max(seconds, 1e-9))


def groups_of(units: Collection[Unit], most: int, size: Callable[[], int]) -> Iterator[tuple[Unit, ...]]:
    """Yield units in groups of one row block each; every unit alone, in the given order, if `most` is one.

    Args:
        units: in the order of views and row blocks.
        most: units in a group.
        size: is called for each group, and returns how many units it should have.
    """
    if most == 1:
        yield from ((unit,) for unit in units)
        return
    blocks: dict[int, deque[Unit]] = {}
    for unit in units:
        blocks.setdefault(unit.block, deque()).append(unit)
    for _, waiting in sorted(blocks.items()):
        while waiting:
            count = max(1, min(most, size(), len(waiting)))
            yield tuple(waiting.popleft() for _ in range(count))


def most_at_once(layout: StoreLayout, samples: Samples, groups: int = 1) -> int:
    """Return how many units may be filled at once: one where images are not decoded, else as many as memory holds.

    Args:
        layout: of the cache.
        samples: that it is made of.
        groups: of units that are in memory.
    """
    if samples.split.image_shape is not None:
        return 1
    return max(1, min(VIEWS_AT_ONCE, BYTES_AT_ONCE // (groups * layout.unit_bytes(""))))


class SharedImages:
    """Keeps the images that were read last, for the other views of them.

    Args:
        samples: reads them.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._rows = range(0)
        self._images: Images | None = None

    def of(self, rows: range, view: int) -> Images:
        """Return the images of consecutive samples.

        Args:
            view: the number of the view that they are for, for errors.
            rows: the samples.
        """
        if self._images is None or rows != self._rows:
            self._images = None  # memory holds those of one micro-batch
            positions = np.arange(rows.start, rows.stop, dtype=np.int64)
            with during(lambda: view_of(self._samples, view, positions)):
                self._images = self._samples.read(positions)
            self._rows = rows
        return self._images
