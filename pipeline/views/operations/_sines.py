"""Computes sines and cosines in whole numbers, the same on every machine: of angles in units of 1 / 65536 of a turn.

They are computed in Python's integers with 128 bits after the point and rounded to 2^-30. Sine and cosine of one
unit come from their power series, those of n units from n - 1 and 1 by the addition theorem. After the 16,384
steps of a quarter the error is far below what rounding to 2^-30 could see.
"""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

TURN = 1 << 16
"""A full turn."""

ONE = 1 << 30
"""The sine of a quarter."""

_BITS = 128
_PI = Fraction(314159265358979323846264338327950288419716939937510, 10**50)


def sine_and_cosine(turns: Fraction) -> tuple[int, int]:
    """Compute sine and cosine of one angle, in turns, in units of 2^-30: a power series in whole numbers."""
    quarters, rest = divmod(turns, Fraction(1, 4))
    sine, cosine = (_rounded(value) for value in _series(rest))
    for _ in range(int(quarters) % 4):
        sine, cosine = cosine, -sine
    return sine, cosine


def sines(angles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Look up the sines of angles in units of 1 / 65536 of a turn: in units of 2^-30."""
    half, place = np.divmod(angles % TURN, TURN // 2)
    found = _quarter()[np.minimum(place, TURN // 2 - place)]
    signed: NDArray[np.int64] = np.where(half == 1, -found, found)
    return signed


def cosines(angles: NDArray[np.int64]) -> NDArray[np.int64]:
    """Look up the cosines of angles in units of 1 / 65536 of a turn: in units of 2^-30."""
    return sines(angles + TURN // 4)


def _series(turns: Fraction) -> tuple[int, int]:
    """Sine and cosine of an angle of at most a quarter, with `_BITS` after the point."""
    x = int(2 * _PI * turns * (1 << _BITS))
    sums, term, n = [0, 0], 1 << _BITS, 0
    while term:
        sums[(n + 1) % 2] += -term if n % 4 >= 2 else term
        n += 1
        term = (term * x >> _BITS) // n
    return sums[0], sums[1]


def _rounded(value: int) -> int:
    return ((value >> (_BITS - 31)) + 1) >> 1


@functools.cache  # 16,385 numbers that are always the same
def _quarter() -> NDArray[np.int64]:
    sine, cosine = 0, 1 << _BITS
    one_sine, one_cosine = _series(Fraction(1, TURN))
    found = []
    for _ in range(TURN // 4 + 1):
        found.append(_rounded(sine))
        sine, cosine = (
            (sine * one_cosine + cosine * one_sine) >> _BITS,
            (cosine * one_cosine - sine * one_sine) >> _BITS,
        )
    return np.array(found, np.int64)
