"""Draws random words that depend on seed, view and sample alone.

The stream of NumPy's Philox with key (seed, view) is divided into rows of W words, W a multiple of the four
words of one Philox block: the sample at position p owns words p W to (p + 1) W - 1.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

_BLOCK = 4
# To move the counter costs as much as to generate about this many samples and to throw them away.
_GAP = 64


def random_words(seed: int, view: int, samples: NDArray[np.int64], count: int) -> NDArray[np.uint64]:
    """Draw `count` 64-bit words for each of `samples` [B]: uint64 [B, count].

    Args:
        seed, view: the key.
        samples: positions, in any order.
    """
    blocks = -(-count // _BLOCK)
    result = np.empty((len(samples), count), np.uint64)
    if not result.size:
        return result
    order = np.argsort(samples, kind="stable")
    ordered = samples[order]
    stream = Philox(key=np.array([seed, view], np.uint64))
    at = 0
    for run in np.split(np.arange(len(ordered)), np.flatnonzero(np.diff(ordered) > _GAP) + 1):
        first, last = int(ordered[run[0]]), int(ordered[run[-1]])
        stream.advance((first - at) * blocks)
        rows = stream.random_raw((last + 1 - first) * blocks * _BLOCK).reshape(-1, blocks * _BLOCK)
        result[order[run]] = rows[ordered[run] - first, :count]
        at = last + 1
    return result


def integers(words: NDArray[np.uint64], n: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn words into integers in [0, n), n at most 2^31: the upper half of each word, scaled."""
    scaled = (words >> np.uint64(32)) * np.asarray(n).astype(np.uint64)
    return (scaled >> np.uint64(32)).astype(np.int64)


def reals(words: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Turn words into reals in [0, 1): multiples of 2^-24, so that float32 holds them exactly."""
    return (words >> np.uint64(40)).astype(np.float64) * 2.0**-24
