from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.training.order import WINDOW_BLOCKS, balanced, order, windows


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31 - 1), st.integers(0, 10**6), st.integers(1, 700), st.integers(1, 64))
def test_order_is_a_permutation_and_a_function_of_its_arguments(seed: int, epoch: int, count: int, rows: int):
    first = order(seed, epoch, count, rows)
    assert sorted(first) == list(range(count))
    np.random.seed(0)  # noqa: NPY002 - the global generator plays no part
    assert np.array_equal(first, order(seed, epoch, count, rows))


def test_another_epoch_and_another_seed_are_other_orders():
    orders = {tuple(order(seed, epoch, 50, 7)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_a_small_store_is_shuffled_completely():
    # Uniform over the samples: the first of 8 * 16 samples comes from every block about equally often.
    firsts = [order(0, epoch, 8 * WINDOW_BLOCKS, 8)[0] // 8 for epoch in range(400)]
    assert min(np.bincount(firsts, minlength=WINDOW_BLOCKS)) >= 8


def test_a_large_store_is_read_window_by_window():
    rows, blocks = 10, 5 * WINDOW_BLOCKS + 3
    shuffled = order(1, 2, rows * blocks, rows)
    window = rows * WINDOW_BLOCKS
    seen: list[int] = []
    for start in range(0, len(shuffled), window):
        part = shuffled[start : start + window]
        touched = np.unique(part // rows)
        assert len(touched) == len(part) // rows  # whole blocks
        assert (np.diff(part) != 1).mean() > 0.8  # in no order of their own
        seen += touched.tolist()
    assert sorted(seen) == list(range(blocks))
    assert seen[:WINDOW_BLOCKS] != list(range(WINDOW_BLOCKS))


def labels_of(*counts: int, unlabeled: int = 0) -> NDArray[np.int64]:
    """So many samples of each class, in a shuffled order."""
    labels = np.concatenate([np.full(count, label) for label, count in enumerate(counts)] + [np.full(unlabeled, -1)])
    return np.random.default_rng(0).permutation(labels)


def drawn(labels: NDArray[np.int64], seed: int = 0, epoch: int = 0, rows: int = 1000) -> NDArray[np.int64]:
    return np.concatenate(balanced(windows(seed, epoch, len(labels), rows), labels, seed, epoch))


def test_balanced_draws_every_class_alike_and_its_samples_alike():
    """60 draws of three classes of 40, 15 and 5 samples: 20 of each, by hand."""
    labels = labels_of(40, 15, 5)
    counts = np.bincount(drawn(labels), minlength=60)
    assert [counts[labels == label].sum() for label in range(3)] == [20, 20, 20]
    assert [sorted(Counter(counts[labels == label].tolist()).items()) for label in range(3)] == [
        [(0, 20), (1, 20)],
        [(1, 10), (2, 5)],
        [(4, 5)],
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=300), st.integers(0, 2**31 - 1), st.integers(1, 40))
def test_balanced_is_as_long_as_an_epoch_and_a_function_of_its_arguments(given_labels: list[int], seed: int, rows: int):
    labels = np.array(given_labels)
    found = drawn(labels, seed, 3, rows)
    assert len(found) == len(labels)
    assert np.array_equal(found, drawn(labels, seed, 3, rows))
    times = np.bincount(found, minlength=len(labels))
    assert (times[labels < 0] == 1).all()  # nothing is known of them
    classes = [times[labels == label] for label in range(6) if (labels == label).any()]
    assert all(np.ptp(each) <= 1 for each in classes)
    assert np.ptp([each.sum() for each in classes] or [0]) <= 1


def test_another_epoch_draws_others_of_a_large_class():
    labels = labels_of(50, 5)
    large = [set(drawn(labels, epoch=epoch)) & set(np.flatnonzero(labels == 0)) for epoch in range(2)]
    assert large[0] != large[1]


def test_balanced_samples_stay_in_their_windows():
    rows, blocks = 4, 3 * WINDOW_BLOCKS
    labels = np.arange(rows * blocks) // (rows * blocks // 8)
    labels[labels > 2] = 3
    parts = windows(0, 0, rows * blocks, rows)
    found = balanced(parts, labels, 0, 0)
    assert all(set(after) <= set(before) for before, after in zip(parts, found, strict=True))


def test_copies_of_a_sample_are_spread_over_the_epoch():
    labels = labels_of(98, 2)
    places = np.flatnonzero(drawn(labels) == np.flatnonzero(labels == 1)[0])
    assert len(places) == 25
    assert np.diff(places).min() >= 2


def test_balanced_leaves_a_balanced_set_as_it_is():
    labels = labels_of(10, 10)
    assert np.array_equal(drawn(labels), order(0, 0, 20, 1000))


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_single_class_is_shuffled(count: int):
    assert sorted(drawn(np.zeros(count, np.int64))) == list(range(count))
