"""Compares what a cache holds once for all views: its head with the network's, its labels with the data set's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.signals import LinearHead
from pipeline.store.reader import TeacherCache

if TYPE_CHECKING:
    from pipeline.data import Samples


@dataclass(frozen=True)
class HeadReport:
    """Counts values of a cache's head that are not those of the network.

    Args:
        values: of weight and bias together.
        different: how many of them are not the same bit for bit.
    """

    values: int
    different: int

    @property
    def problems(self) -> list[str]:
        """List what is wrong, for people."""
        what = f"{self.different:,} of {self.values:,} values of the stored head are not those of the teacher's"
        return [what] if self.different else []


def compare_heads(stored: LinearHead | None, now: LinearHead | None) -> HeadReport | None:
    """Compare the stored head with the network's; None if neither has one. Of heads of other shapes, all values differ.

    A head is read from the weights, not computed, so no device and no version may change a bit of it.

    Args:
        stored: of the cache, None without one.
        now: of the network, None without one.
    """
    one, other = _bits(stored), _bits(now)
    if stored is None or now is None or stored.weight.shape != now.weight.shape:
        values = max(one.size, other.size)
        return HeadReport(values, values) if values else None
    return HeadReport(one.size, int(np.sum(one != other)))


def _bits(head: LinearHead | None) -> NDArray[np.uint32]:
    """Return weight and bias in a row, as they are stored."""
    if head is None:
        return np.empty(0, np.uint32)
    parts = (part.detach().float().cpu().contiguous().numpy().ravel() for part in (head.weight, head.bias))
    return np.concatenate(list(parts)).view(np.uint32)


@dataclass(frozen=True)
class LabelsReport:
    """Counts labels of a cache that are not those of the data set today.

    Args:
        samples: of the cache.
        different: how many of them have another label.
        first: where the first of them is, for people; None if there is none.
    """

    samples: int
    different: int
    first: str | None

    @property
    def notes(self) -> list[str]:
        """List what differs, for people. It is no problem: labels may be corrected, and students learn the new ones."""
        what = f"{self.different:,} of {self.samples:,} labels are not those of the data set today, first {self.first}"
        return [f"{what}; students learn the data set's"] if self.different else []


def verify_labels(cache: TeacherCache, samples: Samples) -> LabelsReport:
    """Compare all labels of an open cache with those of its samples; -1 means none in both."""
    stored = cache.labels
    now = np.full_like(stored, -1) if samples.labels is None else samples.labels
    wrong, first = np.flatnonzero(stored != now), None
    if len(wrong):
        row = int(wrong[0])
        first = f"sample {row} ({samples.ids(wrong[:1])[0]}): {stored[row]} in the cache, {now[row]} in the data set"
    return LabelsReport(len(stored), len(wrong), first)
