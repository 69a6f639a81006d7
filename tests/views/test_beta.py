"""Shares of mixed images against SciPy's distribution, and the table's symmetry."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy.special import betainc
from scipy.stats import beta, kstest

from pipeline.views.beta import WHOLE, _thresholds, beta_shares

ALPHAS = (0.001, 0.1, 0.2, 0.4, 0.8, 1.0, 1.5, 2.0, 7.3, 64.0)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_table_is_the_distribution_function_between_two_shares(alpha: float) -> None:
    x = (2 * np.arange(WHOLE) + 1) / (2 * WHOLE)
    table = _thresholds(alpha)
    assert np.abs(table.astype(np.float64) - betainc(alpha, alpha, x) * 2.0**32).max() < 0.501
    assert np.all(table[1:] >= table[:-1])
    assert np.array_equal(table + table[::-1], np.full(WHOLE, 2**32, np.uint64))


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_drawn_shares_are_distributed_as_beta(alpha: float) -> None:
    words = np.random.default_rng(7).integers(0, 2**64, 20_000, np.uint64)
    drawn = beta_shares(words, alpha)
    # A share is rounded: a uniform remainder makes it continuous again, but for the ends, where the density is steep.
    below, above = beta.cdf((drawn - 0.5) / WHOLE, alpha, alpha), beta.cdf((drawn + 0.5) / WHOLE, alpha, alpha)
    place = below + (above - below) * np.random.default_rng(8).random(len(drawn))
    assert kstest(place, "uniform").pvalue > 0.01
    assert abs(drawn.mean() / WHOLE - 0.5) < 4 * beta.std(alpha, alpha) / len(drawn) ** 0.5


def test_alpha_one_is_uniform_and_the_ends_are_there() -> None:
    assert beta_shares(np.array([0, 2**64 - 1, 2**63], np.uint64), 1.0).tolist() == [0, WHOLE, WHOLE // 2]
    assert beta_shares(np.array([1 << 48], np.uint64), 1.0).tolist() == [1]
    assert beta_shares(np.array([(1 << 47) - 1, 1 << 47], np.uint64), 1.0).tolist() == [0, 1]


def test_the_table_has_the_same_bits_everywhere() -> None:
    """Views that are drawn anew depend on it: on no machine may it be another."""
    found = {alpha: hashlib.sha256(_thresholds(alpha).astype("<u8").tobytes()).hexdigest()[:16] for alpha in (0.2, 0.8)}
    assert found == {0.2: "d54271ecc1990327", 0.8: "9f8cb8f0a8ab0810"}
