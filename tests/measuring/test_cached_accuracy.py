"""Teachers of known accuracy, made of labels and chance; the expected figures are worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.measuring.teacher_accuracy import BLOCKS, SAMPLED, CachedAccuracy, accuracy_of, sampled_rows

NAMES = [f"name{k}" for k in range(100)]


def drawn(classes: int, count: int = 2000, seed: int = 0, weights: list[float] | None = None) -> NDArray[np.int64]:
    return np.random.default_rng(seed).choice(classes, count, p=weights).astype(np.int64)


def teacher(labels: NDArray[np.int64], right: float, classes: int) -> NDArray[np.int64]:
    """Right on a share of the labels, and any class at all elsewhere."""
    other = drawn(classes, len(labels), seed=1)
    return np.where(np.random.default_rng(2).random(len(labels)) < right, labels, other)


def text(found: CachedAccuracy) -> str:
    return "\n".join(found.sentences(NAMES))


def test_the_accuracy_and_what_chance_would_give():
    labels, said = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 1, 0, 2, 0])
    found = accuracy_of(labels, said, 3)
    assert found.accuracy == pytest.approx(4 / 6)
    # Labels: a third each. Answers: 4, 1 and 1 of 6.
    assert found.chance == pytest.approx((4 + 1 + 1) / 18)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_a_teacher_that_knows_its_classes_is_not_warned_of(classes: int):
    labels = drawn(classes)
    found = accuracy_of(labels, teacher(labels, 0.9, classes), classes)
    assert found.accuracy > 0.85
    assert not found.near_chance
    assert text(found) == f"the teacher is right on {100 * found.accuracy:.1f} % of 2,000 cached training views"


@pytest.mark.parametrize("classes", [2, 10, 100, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_answers_that_have_nothing_to_do_with_labels_are_told(classes: int, seed: int):
    found = accuracy_of(drawn(classes, seed=seed), drawn(classes, seed=seed + 50), classes)
    assert found.near_chance
    assert found.order is None
    assert "students would learn nothing from it" in text(found)
    assert "teacher.mean" in text(found)


def test_one_class_for_everything_is_chance_however_common_it_is():
    labels = drawn(3, weights=[0.9, 0.05, 0.05])
    found = accuracy_of(labels, np.zeros_like(labels), 3)
    assert found.accuracy > 0.85
    assert found.near_chance


def test_a_teacher_of_rare_classes_may_be_right_less_often_than_the_commonest_class_is_there():
    labels = drawn(2, weights=[0.95, 0.05])
    said = np.where((labels == 0) & (np.arange(len(labels)) % 10 == 0), 1, labels)  # one of ten is taken for the rare
    found = accuracy_of(labels, said, 2)
    assert found.accuracy < 0.95
    assert not found.near_chance


@pytest.mark.parametrize(("classes", "count"), [(3, 60), (10, 2000), (100, 2000)])
def test_another_order_of_classes_is_found(classes: int, count: int):
    labels = drawn(classes, count)
    shuffled = (np.arange(classes) + 1) % classes  # the teacher's number of each label
    found = accuracy_of(labels, shuffled[teacher(labels, 0.9, classes)], classes)
    assert found.near_chance
    assert found.order is not None
    assert found.order == tuple((np.arange(classes) - 1) % classes)
    assert found.reordered > 0.8
    assert f"its class 0 is name{classes - 1} ({classes - 1} here), 1 is name0 (0 here)" in text(found)
    assert "Causes" not in text(found)


def test_two_classes_that_changed_places_are_named_alone():
    labels = drawn(6)
    swapped = np.array([0, 1, 3, 2, 4, 5])
    found = accuracy_of(labels, swapped[teacher(labels, 0.95, 6)], 6)
    assert not found.near_chance
    assert "with 2 of 6 renamed" in text(found)
    assert "its class 2 is name3 (3 here), 3 is name2 (2 here). Pack" in text(found)


def test_a_weak_teacher_is_not_taken_for_one_of_another_order():
    labels = drawn(100)
    found = accuracy_of(labels, teacher(labels, 0.2, 100), 100)
    assert found.order is None
    assert not found.near_chance


@pytest.mark.parametrize(("count", "block"), [(48, 2), (5, 100), (2049, 100), (100_000, 512), (1_281_167, 2048)])
def test_few_blocks_and_few_rows_are_read(count: int, block: int):
    rows = sampled_rows(count, block)
    assert len(np.unique(rows)) == len(rows) <= SAMPLED
    assert len(np.unique(rows // block)) <= BLOCKS or count <= SAMPLED
    assert rows[0] == 0
    assert rows[-1] == count - 1
    assert len(rows) > 0.35 * min(count, SAMPLED)
