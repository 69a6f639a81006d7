"""Draws the shares of two images that are mixed: Beta(alpha, alpha), in whole 65,536ths, the same on every machine.

A random word is looked up in a table of the distribution: share k has the words from P(share < k) to P(share <= k),
in units of 2^-32. The distribution function comes from a series of positive terms,

    I_x(a, a) = 1/2 (4 x (1 - x))^a G(x) / G(1/2),   G(x) = sum over n of x^n (2a)_n / (a + 1)_n   (x <= 1/2)

(DLMF 8.17.8, scaled so that I is 1/2 in the middle), by sums, products, quotients and square roots of float64
alone. IEEE 754 says how each of these is rounded, so the table has the same bits everywhere. Logarithms, powers and
the gamma function are the C library's, and have not: so no generator of NumPy draws here, and scipy's function is
only what tests compare with.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

WHOLE = 1 << 16
"""The share of an image that nothing is mixed into."""

LARGEST_ALPHA = 64.0
"""No power of the series falls below float64's normal numbers, which some machines take for zero."""

_UNIT = 2.0**32
_NEGLIGIBLE = 2.0**-60


def beta_shares(words: NDArray[np.uint64], alpha: float) -> NDArray[np.int64]:
    """Turn words into shares 0..65,536, of which s / 65,536 is distributed as Beta(alpha, alpha), rounded.

    Args:
        alpha: above 0 and at most `LARGEST_ALPHA`.
    """
    return np.searchsorted(_thresholds(alpha), words >> np.uint64(32), side="right").astype(np.int64)


@functools.cache
def _thresholds(alpha: float) -> NDArray[np.uint64]:
    """The first word of each share from 1 to 65,536, in units of 2^-32: uint64 [65536], ascending."""
    x = np.arange(1, WHOLE, 2, dtype=np.float64) / (2 * WHOLE)  # between two shares, below the middle
    middle = np.array([0.5])
    below = 0.5 * _power(4 * x * (1 - x), alpha) * _series(x, alpha) / _series(middle, alpha)
    lower = np.floor(below * _UNIT + 0.5).astype(np.uint64)
    return np.concatenate([lower, np.uint64(2**32) - lower[::-1]])


def _series(x: NDArray[np.float64], alpha: float) -> NDArray[np.float64]:
    """G(x), for x of at most a half."""
    total, term, number = np.ones_like(x), np.ones_like(x), 1
    largest, whole = 1.0, 1.0  # the same for x = 1/2: when to stop must not depend on how a maximum is found
    while largest > _NEGLIGIBLE * whole:
        ratio = (2 * alpha + (number - 1)) / (alpha + number)
        term = term * (x * ratio)
        total = total + term
        largest, number = largest * (0.5 * ratio), number + 1
        whole += largest
    return total


def _power(base: NDArray[np.float64], exponent: float) -> NDArray[np.float64]:
    """base ** exponent by products and square roots: one root for each binary digit behind the point."""
    result, root, rest = np.ones_like(base), base, exponent
    while rest >= 1:
        result, rest = result * base, rest - 1
    while rest:
        root, rest = np.sqrt(root), 2 * rest
        if rest >= 1:
            result, rest = result * root, rest - 1
    return result
