"""Random words against one NumPy generator per sample, and what is made of them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox
from numpy.typing import NDArray

from pipeline.views.keyed_random import integers, random_words, reals


def oracle(seed: int, view: int, sample: int, count: int) -> NDArray[np.uint64]:
    """The words of one sample, from the start of the stream where that is near, else by the counter."""
    width = -(-count // 4) * 4
    if sample < 1000:
        return Philox(key=np.array([seed, view], np.uint64)).random_raw((sample + 1) * width)[-width:][:count]
    return Philox(key=np.array([seed, view], np.uint64), counter=sample * width // 4).random_raw(count)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**63 - 1),
    view=st.integers(0, 10**6),
    samples=st.lists(st.integers(0, 300) | st.integers(0, 10**12), max_size=12),
    count=st.integers(1, 23),
)
def test_words_are_those_of_the_stream(seed: int, view: int, samples: list[int], count: int) -> None:
    words = random_words(seed, view, np.array(samples, np.int64), count)
    assert words.shape == (len(samples), count)
    for sample, row in zip(samples, words, strict=True):
        assert np.array_equal(row, oracle(seed, view, sample, count))


def test_words_of_seed_zero_stay_what_they_are() -> None:
    # Published caches are replayed by these: a change here is a change of every view.
    words = random_words(0, 0, np.array([0, 1]), 2)
    assert words.tolist() == [
        [213000021201967259, 4455796210202625458],
        [9267267987884836803, 5120919030223861725],
    ]


def test_no_words() -> None:
    assert random_words(0, 0, np.arange(5), 0).shape == (5, 0)
    assert random_words(0, 0, np.empty(0, np.int64), 3).shape == (0, 3)


@pytest.mark.parametrize("n", [1, 2, 9, 1000, 2**31])
def test_integers_are_the_floor_of_the_scaled_upper_half(n: int) -> None:
    words = np.random.default_rng(0).integers(0, 2**64, 50, np.uint64)
    words[:2] = 0, 2**64 - 1
    expected = [int(Fraction(int(w) >> 32, 2**32) * n) for w in words]
    assert integers(words, n).tolist() == expected
    assert integers(words, np.full(len(words), n)).tolist() == expected


def test_reals_are_exact_in_float32() -> None:
    words = np.array([0, 2**40, 2**63, 2**64 - 1], np.uint64)
    values = reals(words)
    assert values.tolist() == [0.0, 2.0**-24, 0.5, 1 - 2.0**-24]
    assert np.array_equal(values.astype(np.float32), values)
