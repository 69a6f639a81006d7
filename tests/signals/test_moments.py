"""Moments that are computed piece by piece, against NumPy over everything at once."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from pipeline.signals.moments import Moments


@pytest.mark.parametrize("pieces", [1, 2, 7, 40])
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_piece_by_piece_is_at_once(pieces: int, far: float):
    vectors = np.random.default_rng(0).normal(size=(40, 5)) * [1, 2, 0.1, 3, 1e-3] + far
    found = reduce(Moments.merged, [Moments.of(piece) for piece in np.array_split(vectors, pieces)])
    assert found.count == 40
    np.testing.assert_allclose(found.mean, vectors.mean(0), rtol=1e-12)
    expected = np.cov(vectors, rowvar=False, ddof=0)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-6 if far else 1e-11, atol=1e-8 if far else 1e-14)
    assert np.array_equal(found.covariance, found.covariance.T)


def test_by_hand():
    one, other = Moments.of(np.array([[0.0, 0.0], [2.0, 0.0]])), Moments.of(np.array([[1.0, 3.0]]))
    both = one.merged(other)
    np.testing.assert_allclose(both.mean, [1, 1])
    np.testing.assert_allclose(both.covariance, [[2 / 3, 0], [0, 2]])
