"""Chooses the order of an epoch's samples: shuffled, or drawn so that all classes are equally frequent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW_BLOCKS = 16
"""Row blocks shuffled together: larger stores are read window by window, so that reads stay local."""

_BALANCE_STREAM = 0x62616C616E6365  # "balance": keeps these random words apart from those of the order


def order(seed: int, epoch: int, count: int, rows_per_block: int) -> NDArray[np.int64]:
    """Return the order of an epoch's samples: a permutation of 0..count-1 that depends on nothing but the arguments.

    Args:
        seed, epoch: key the random numbers.
        count: N, samples.
        rows_per_block: samples in a row block of the store.

    Row blocks are shuffled, and samples within windows of `WINDOW_BLOCKS` blocks: a store of that size or less is
    shuffled completely.
    """
    return np.concatenate(windows(seed, epoch, count, rows_per_block))


def windows(seed: int, epoch: int, count: int, rows_per_block: int) -> list[NDArray[np.int64]]:
    """Return the windows of `order`, one after the other. The arguments are the same.

    Args:
        seed, epoch, count, rows_per_block: as of `order`.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    blocks = -(-count // rows_per_block)
    if blocks <= WINDOW_BLOCKS:
        return [random.permutation(count)]
    shuffled = random.permutation(blocks)
    parts = []
    for window in (shuffled[i : i + WINDOW_BLOCKS] for i in range(0, blocks, WINDOW_BLOCKS)):
        rows = np.concatenate([np.arange(b * rows_per_block, min((b + 1) * rows_per_block, count)) for b in window])
        parts.append(random.permutation(rows))
    return parts


def balanced(
    parts: list[NDArray[np.int64]], labels: NDArray[np.int64], seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Return windows in which every class is drawn equally often, with as many samples in all.

    Args:
        parts: a permutation of 0..N-1, cut into windows.
        labels: int64 [N], -1 for a sample without one, which is drawn once.
        seed, epoch: key the random numbers.

    The labeled ones are shared among the classes that there are, evenly up to one; in its class every sample is drawn
    equally often, up to one. Samples stay in their windows, whose lengths vary, so that reads stay local; copies of one
    sample are spread over its window.
    """
    times = _times(
        labels, np.random.Generator(np.random.Philox(key=np.array([seed ^ _BALANCE_STREAM, epoch], np.uint64)))
    )
    found = []
    for part in parts:
        rows = part.repeat(times[part])
        # By turns through the window, so that the same sample does not come twice in a row.
        turn = np.arange(len(rows)) - (np.cumsum(times[part]) - times[part]).repeat(times[part])
        place = (turn + np.arange(len(part)).repeat(times[part]) / max(len(part), 1)) / times[rows]
        found.append(rows[np.argsort(place, kind="stable")])
    return found


def _times(labels: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Return how often each sample is drawn, int64 [N]."""
    times = np.ones(len(labels), np.int64)
    classes = [np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])]
    total, more = divmod(int((labels >= 0).sum()), max(len(classes), 1))
    luckier = set(random.permutation(len(classes))[:more].tolist())
    for number, rows in enumerate(classes):
        each, rest = divmod(total + (number in luckier), len(rows))
        times[rows] = each
        times[random.permutation(rows)[:rest]] += 1
    return times
