from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import DataConfig, select
from pipeline.data.selection import described, limited
from pipeline.errors import DataError


class Labels:
    """As much of a data set, and of its only split, as selecting needs."""

    name, image_shape = "train", (1, 1, 1)

    def __init__(self, labels):
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        self.count = 100 if labels is None else len(labels)

    def split(self, name):
        return self


def config(count=None, seed=0, limit=None) -> DataConfig:
    holdout = None if count is None else {"count": count, "seed": seed}
    return DataConfig.model_validate({"path": "x.h5", "holdout": holdout, "limit": limit})


def test_without_holdout_all_samples_are_used():
    samples, holdout = select(Labels([0, 1, 0]), config())
    assert samples.positions.tolist() == [0, 1, 2]
    assert holdout is None


@given(
    labels=st.lists(st.integers(0, 4), min_size=2, max_size=120),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=80, deadline=None)
def test_the_holdout_is_a_balanced_part(labels, share, seed):
    labels = np.array(labels)
    count = max(1, int(share * (len(labels) - 1)))
    samples, holdout = select(Labels(labels), config(count, seed))
    assert holdout.count == count
    assert sorted([*samples.positions, *holdout.positions]) == list(range(len(labels)))
    sizes, held = np.bincount(labels, minlength=5), np.bincount(holdout.labels, minlength=5)
    halves = sizes // 2
    if count <= halves.sum():
        # Equally many of every class, one more or less, but for classes that gave half of what they have.
        assert np.all(held <= halves)
        free = held[(held < halves)]
        assert len(free) == 0 or held.max() - free.min() <= 1
    else:
        assert np.all(held >= halves)


def test_a_balanced_set_gives_a_balanced_holdout():
    labels = np.tile(np.arange(10), 30)
    samples, holdout = select(Labels(labels), config(50))
    assert np.bincount(holdout.labels).tolist() == [5] * 10
    assert np.bincount(samples.labels).tolist() == [25] * 10


def by_hand(labels, count, seed) -> list[int]:
    """The rule, sample by sample: every class lines up by random words; the classes give in turn."""
    words = np.random.Philox(key=np.array([seed, int.from_bytes(b"holdout")], np.uint64)).random_raw(len(labels))
    lines = [sorted(np.flatnonzero(labels == k), key=lambda i: words[i]) for k in np.unique(labels)]
    turns = []
    for scarce in (False, True):
        for place in range(len(labels)):
            turn = [line[place] for line in lines if place < len(line) and (place >= len(line) // 2) == scarce]
            turns += sorted(turn, key=lambda i: words[i])
    return sorted(int(i) for i in turns[:count])


@pytest.mark.parametrize("count", [1, 7, 20, 33, 38])
def test_the_holdout_follows_its_rule(count):
    labels = np.random.default_rng(5).choice(5, 40, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    assert select(Labels(labels), config(count, 9))[1].positions.tolist() == by_hand(labels, count, 9)


def test_the_holdout_is_a_function_of_the_seed_and_stays_as_it_was():
    labels = np.tile(np.arange(4), 25)

    def chosen(seed):
        return select(Labels(labels), config(8, seed))[1].positions.tolist()

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)
    # Written down once: another NumPy or another machine must hold out the same samples.
    assert chosen(0) == [1, 23, 36, 38, 56, 57, 67, 70]
    assert chosen(2**63 - 1) == by_hand(labels, 8, 2**63 - 1)


def test_any_two_samples_are_equally_likely_to_be_held_out():
    labels = np.zeros(20, np.int64)
    times = np.zeros(20)
    for seed in range(400):
        times[select(Labels(labels), config(5, seed))[1].positions] += 1
    # Binomial(400, 1/4): mean 100, standard deviation 8.7.
    assert np.all(np.abs(times - 100) < 4.5 * 8.7)


def test_the_limit_comes_before_the_holdout():
    labels = np.arange(100) % 2
    samples, holdout = select(Labels(labels), config(4, limit=10))
    assert samples.count == 6
    assert max(samples.positions.max(), holdout.positions.max()) == 9
    assert np.bincount(holdout.labels).tolist() == [2, 2]
    assert select(Labels(labels), config(limit=1000))[0].count == 100


def test_a_holdout_that_leaves_nothing_is_refused():
    with pytest.raises(DataError, match=r"data.holdout.count\n  expected: fewer than the 10 (.|\n)*got: 10"):
        select(Labels(np.arange(100) % 2), config(10, limit=10))


def test_samples_without_a_label_are_never_held_out():
    labels = np.where(np.arange(100) % 3 == 0, -1, np.arange(100) % 2)
    labeled = np.flatnonzero(labels >= 0)
    samples, holdout = select(Labels(labels), config(12, 5))
    assert np.bincount(holdout.labels).tolist() == [6, 6]
    assert holdout.positions.tolist() == [int(labeled[i]) for i in by_hand(labels[labeled], 12, 5)]
    assert sorted([*samples.positions, *holdout.positions]) == list(range(100))
    with pytest.raises(DataError, match="fewer than the 66 labeled samples"):
        select(Labels(labels), config(66))
    samples, holdout = select(Labels([-1, -1, -1]), config(1, limit=2))  # where none has a label, any may be
    assert (samples.count, holdout.count) == (1, 1)


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="is empty"):
        select(Labels([]), config())


def drawn(labels, limit) -> list[int]:
    return limited(Labels(labels), config(limit=limit).limit).tolist()


def in_turn(labels, count, seed) -> list[int]:
    """The rule of a draw, sample by sample: the classes give in turn, each in the order of its random words."""
    words = np.random.Philox(key=np.array([seed, int.from_bytes(b"limit")], np.uint64)).random_raw(len(labels))
    lines = [sorted(np.flatnonzero(labels == k), key=lambda i: words[i]) for k in np.unique(labels)]
    turns = []
    for place in range(len(labels)):
        turns += sorted((line[place] for line in lines if place < len(line)), key=lambda i: words[i])
    return sorted(int(i) for i in turns[:count])


def test_a_limit_of_files_sorted_by_class_is_drawn_from_all_classes():
    labels = np.repeat(np.arange(10), 30)
    positions = drawn(labels, 100)
    assert np.bincount(labels[positions]).tolist() == [10] * 10
    assert positions == in_turn(labels, 100, 0) == sorted(positions)
    assert positions != list(range(100))


@pytest.mark.parametrize(("classes", "size", "limit"), [(2, 50, 10), (3, 10, 12), (2, 2, 2), (10, 6, 20)])
def test_a_limit_of_few_files_sorted_by_class_is_drawn_too(classes: int, size: int, limit: int):
    """Where numbers alone could still be chance: ten images of the first of two classes."""
    for order in (range(classes), reversed(range(classes))):
        labels = np.repeat(list(order), size)
        counts = np.bincount(labels[drawn(labels, limit)], minlength=classes)
        assert counts.max() - counts.min() <= 1


def test_a_plain_limit_keeps_the_first_where_they_are_a_fair_part():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 60))
    assert drawn(labels, 300) == list(range(300))
    assert drawn(labels, {"count": 300}) == list(range(300))
    assert drawn(labels, {"count": 300, "seed": 0}) == in_turn(labels, 300, 0) != list(range(300))
    # Of two even classes 40 have 20 each; 20 + d and 20 - d make d^2 / 10, of which 1 + 8 sqrt(2) = 12.3 are allowed.
    for d, fair in ((11, True), (12, False)):
        labels = np.array([0] * (20 + d) + [1] * (20 - d) + [0] * (30 - d) + [1] * (30 + d))
        assert (drawn(labels, 40) == list(range(40))) is fair


@pytest.mark.parametrize(("classes", "size"), [(100, 500), (10, 5000), (3, 40)])
def test_a_plain_limit_of_a_random_order_is_the_first_however_small(classes: int, size: int):
    """As in version 0.1, whose caches stay valid; also where classes are of very different sizes."""
    for sizes in ([size] * classes, [max(1, size // (k + 1)) for k in range(classes)]):
        labels = np.random.default_rng(3).permutation(np.repeat(np.arange(classes), sizes))
        for count in (5, 50, len(labels) // 10, len(labels) // 2):
            assert drawn(labels, count) == list(range(min(count, len(labels))))


def test_a_draw_is_a_function_of_its_seed_and_a_larger_one_keeps_a_smaller():
    labels = np.random.default_rng(1).choice(5, 200, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    parts = [set(drawn(labels, {"count": count, "seed": 7})) for count in (10, 11, 60, 199)]
    assert [len(part) for part in parts] == [10, 11, 60, 199]
    assert all(small < large for small, large in itertools.pairwise(parts))
    assert parts[2] != set(drawn(labels, {"count": 60, "seed": 8}))
    # Written down once: another NumPy or another machine must draw the same samples.
    assert drawn(np.repeat(np.arange(4), 25), {"count": 8, "seed": 0}) == [4, 6, 29, 35, 62, 72, 87, 99]


def test_classes_with_too_few_samples_give_all_of_them():
    labels = np.array([0] * 100 + [1] * 3 + [2] * 100)
    assert np.bincount(labels[drawn(labels, 43)]).tolist() == [20, 3, 20]


def test_samples_without_a_label_have_their_share_of_a_limit():
    labels = np.array([0] * 50 + [1] * 50 + [-1] * 300)
    positions = drawn(labels, 80)
    assert np.bincount(labels[positions] + 1).tolist() == [60, 10, 10]
    assert drawn(None, 10) == list(range(10))  # nothing to balance
    free = drawn(None, {"count": 10, "seed": 3})
    assert len(set(free)) == 10
    assert max(free) > 20


class TwoSplits:
    """A data set with a split of one's own to choose by."""

    def __init__(self, train, val):
        self.splits = {"train": Labels(train), "val": Labels(val), "test": Labels([0, 1])}

    def split(self, name):
        return self.splits[name]


def own(**more) -> DataConfig:
    return DataConfig.model_validate({"path": "x.h5", "holdout": {"split": "val"}, **more})


def test_a_split_of_ones_own_is_held_out():
    data = TwoSplits([0, 1] * 20, [1, -1, 0, -1])
    samples, holdout = select(data, own())
    assert samples.positions.tolist() == list(range(40))
    assert holdout.split is data.split("val")
    assert holdout.positions.tolist() == [0, 2]  # those without a label could not be scored
    samples, holdout = select(data, own(limit=10))
    assert (samples.count, holdout.count) == (10, 2)
    with pytest.raises(DataError, match=r"split 'train' has no labels to score by\n  where: data.holdout.split"):
        select(TwoSplits([0, 1], None), own())
    with pytest.raises(ValueError, match=r"holdout\.split is the split that is learnt from"):
        own(split="val")


@pytest.mark.parametrize("labels", [None, [-1] * 40])
def test_where_nothing_has_labels_any_sample_is_held_out(labels: list[int] | None):
    data = TwoSplits([-1] * 40, labels)
    data.splits["train"].labels = None if labels is None else np.array(labels)
    samples, holdout = select(data, config(10, 3))
    assert sorted([*samples.positions, *holdout.positions]) == list(range(40))
    assert holdout.count == 10
    assert select(data, config(10, 3))[1].positions.tolist() == holdout.positions.tolist()
    assert select(data, config(10, 4))[1].positions.tolist() != holdout.positions.tolist()
    assert select(data, own())[1].count == data.split("val").count
    with pytest.raises(DataError, match=r"expected: fewer than the 40 samples of split 'train'"):
        select(data, config(40, 0))


def test_what_was_selected_is_said_in_words():
    data = TwoSplits(np.repeat(np.arange(2), 50), [0])
    where = "the ids: holdout.csv in the folder of every student, and of a teacher that is trained here"
    assert list(described(data, own())) == [f"held out: split val; {where}"]
    *_, warning = described(data, own(), "val")
    assert warning == "warning: split val is held out to choose by and reported too: its figures will be too good"
    assert list(described(data, own(), "test")) == list(described(data, own()))
    *_, warning = described(data, own(), "train")
    assert warning == "warning: split train is learnt from and reported too: its figures say nothing about other images"
    for labels in (None, [0, -1]):
        (line,) = described(TwoSplits([0, 1], labels), config(), "val")
        assert line == "warning: split val has images without labels: `evaluate` will want another evaluate.split"
    (line,) = described(TwoSplits(None, [0]), config(), "train")  # not warned of what is learnt: there are no figures
    assert line.startswith("warning: split train has images without labels")
    assert list(described(data, config(4, 3, limit=20))) == [
        "limit: drawn evenly from the classes with seed 0: 20 of the 100 samples of split train",
        f"held out: 4 of them, evenly from the classes with seed 3; {where}",
    ]
    (line,) = described(TwoSplits([0, 1] * 50, [0]), config(limit=20))
    assert line == "limit: the first 20 of the 100 samples of split train"
