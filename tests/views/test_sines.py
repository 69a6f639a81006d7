"""Whole-number sines against mpmath's, and the identities that they must keep."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np

from pipeline.views.operations import _sines
from pipeline.views.operations._sines import ONE, TURN


def test_every_sine_is_rounded_to_the_nearest() -> None:
    angles = np.arange(-TURN, TURN, 97)
    with mpmath.workdps(40):
        exact = [mpmath.sin(2 * mpmath.pi * int(angle) / TURN) * ONE for angle in angles]
        assert _sines.sines(angles).tolist() == [int(mpmath.nint(value)) for value in exact]


def test_quarters_are_exact_and_circles_close() -> None:
    quarters = np.arange(-4, 5) * (TURN // 4)
    assert _sines.sines(quarters).tolist() == [0, ONE, 0, -ONE, 0, ONE, 0, -ONE, 0]
    assert _sines.cosines(quarters).tolist() == [ONE, 0, -ONE, 0, ONE, 0, -ONE, 0, ONE]
    angles = np.arange(TURN)
    lengths = _sines.sines(angles).astype(float) ** 2 + _sines.cosines(angles).astype(float) ** 2
    assert np.abs(lengths / ONE**2 - 1).max() < 2.0**-29


def test_one_angle_is_the_table_s() -> None:
    for angle in (*range(-TURN, TURN, 1021), TURN // 4, TURN // 2, 3 * TURN // 4):
        pair = _sines.sine_and_cosine(Fraction(angle, TURN))
        assert pair == (_sines.sines(np.array(angle)), _sines.cosines(np.array(angle)))
    sine, cosine = _sines.sine_and_cosine(Fraction(30, 360))
    assert (sine, cosine) == (ONE // 2, round(np.sqrt(0.75) * ONE))
