from __future__ import annotations

import hashlib
import pickle
import struct

import h5py
import numpy as np
import pytest
import torch
from data_files import ListSource, image_bytes, noise, write_packed
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import DataConfig, HoldoutConfig, Item, PackedDataset, Samples, pack, select
from pipeline.errors import DataError
from pipeline.progress import Silent


class Labels:
    """As much of a split as selecting needs."""

    name, image_shape = "train", (1, 1, 1)

    def __init__(self, labels):
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        self.count = 100 if labels is None else len(labels)


def config(count=None, seed=0, limit=None) -> DataConfig:
    holdout = None if count is None else HoldoutConfig(count=count, seed=seed)
    return DataConfig(path="x.h5", holdout=holdout, limit=limit)


def digest(*parts: bytes) -> str:
    return "sha256:" + hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture
def split(tmp_path):
    path = write_packed(
        tmp_path / "x.h5",
        images=noise(10, 4, 5, 3),
        labels=np.arange(10) % 2,
        ids=[f"s{i}" for i in range(10)],
    )
    return PackedDataset.open(path).split("train")


def test_samples_are_numbered_within_their_positions(split):
    samples = Samples(split, np.array([2, 5, 9]))
    assert samples.count == 3
    assert samples.labels.tolist() == [0, 1, 1]
    images = samples.read(np.array([2, 0, 2]))
    expected = noise(10, 4, 5, 3)[[9, 2, 9]].transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(images, expected)
    for wrong in (-1, 3):
        with pytest.raises(IndexError):
            samples.read(np.array([wrong]))


@pytest.mark.parametrize("positions", [[3, 2], [1, 1], [-1, 2], [2, 10]])
def test_positions_that_are_not_ascending_are_refused(split, positions):
    with pytest.raises(IndexError, match="ascending"):
        Samples(split, np.array(positions))


def test_digests_are_those_of_the_documented_bytes(split):
    samples = Samples(split, np.array([2, 5, 9]))
    images = noise(10, 4, 5, 3)[[2, 5, 9]]
    assert samples.pixel_digest() == digest(b"pixels uint8 3 4 5 3\n", images.tobytes())
    assert samples.labels_digest() == digest(b"labels 3\n", struct.pack("<3q", 0, 1, 1))
    ids = b"".join(struct.pack("<Q", 2) + name for name in (b"s2", b"s5", b"s9"))
    assert samples.ids_digest() == digest(b"ids 3\n", ids)


def test_digests_of_image_files_are_those_of_their_bytes(tmp_path):
    files = [image_bytes(noise(4, 4 + i, 3)) for i in range(3)]
    items = [Item(file, None, str(i)) for i, file in enumerate(files)]
    pack(ListSource(train=items), tmp_path / "x.h5", Silent())
    samples = Samples(PackedDataset.open(tmp_path / "x.h5").split("train"))
    content = b"".join(struct.pack("<Q", len(file)) + file for file in files)
    assert samples.pixel_digest() == digest(b"files 3\n", content)
    assert samples.labels_digest() is None
    assert samples.labels is None
    assert samples.resident(2**30) is None


def test_digests_of_pixels_and_labels_are_separate(tmp_path):
    first = Samples(PackedDataset.open(write_packed(tmp_path / "a.h5")).split("train"))
    relabelled = Samples(PackedDataset.open(write_packed(tmp_path / "b.h5", labels=[0, 1, 1])).split("train"))
    renamed = Samples(PackedDataset.open(write_packed(tmp_path / "c.h5", ids=("a", "b", "d"))).split("train"))
    assert first.pixel_digest() == relabelled.pixel_digest() == renamed.pixel_digest()
    assert first.labels_digest() != relabelled.labels_digest()
    assert first.ids_digest() != renamed.ids_digest()
    assert first.labels_digest() == renamed.labels_digest()


def test_the_pixel_digest_does_not_depend_on_storage_or_blocks(tmp_path, split, monkeypatch):
    with h5py.File(tmp_path / "gz.h5", "w") as file:
        options = {"compression": "gzip", "chunks": (3, 4, 5, 3)}
        file.create_dataset("train/images", data=noise(10, 4, 5, 3), **options)
        file.create_dataset("train/ids", data=[str(i) for i in range(10)], dtype=h5py.string_dtype())
    other = Samples(PackedDataset.open(tmp_path / "gz.h5").split("train"))
    expected = Samples(split).pixel_digest()
    assert other.pixel_digest() == expected
    monkeypatch.setattr("pipeline.data.samples._BLOCK_BYTES", 130)
    assert other.pixel_digest() == expected
    other.resident(2**20)
    assert other.pixel_digest() == expected


def test_resident_images_are_loaded_once_and_read_from_then_on(split, monkeypatch):
    samples = Samples(split, np.array([1, 2, 8]))
    expected = torch.from_numpy(noise(10, 4, 5, 3)[[1, 2, 8]].transpose(0, 3, 1, 2).copy())
    assert samples.resident(3 * 60 - 1) is None
    images = samples.resident(3 * 60)
    assert torch.equal(images, expected)
    assert images.is_contiguous()
    monkeypatch.setattr(split, "stored", None)
    assert samples.resident(3 * 60) is images
    assert torch.equal(samples.read(np.array([2, 0])), expected[[2, 0]])
    samples.read(np.array([0])).zero_()
    assert torch.equal(samples.read(np.array([0])), expected[:1])  # what is read is a copy


def test_resident_images_do_not_travel(split):
    samples = Samples(split)
    samples.resident(2**20)
    again = pickle.loads(pickle.dumps(samples))
    assert again._resident is None
    assert torch.equal(again.read(np.arange(10)), samples.read(np.arange(10)))


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


def test_a_holdout_without_labels_is_refused():
    with pytest.raises(DataError, match="no labels to balance"):
        select(Labels(None), config(5))


def test_samples_without_a_label_are_never_held_out():
    labels = np.where(np.arange(100) % 3 == 0, -1, np.arange(100) % 2)
    labeled = np.flatnonzero(labels >= 0)
    samples, holdout = select(Labels(labels), config(12, 5))
    assert np.bincount(holdout.labels).tolist() == [6, 6]
    assert holdout.positions.tolist() == [int(labeled[i]) for i in by_hand(labels[labeled], 12, 5)]
    assert sorted([*samples.positions, *holdout.positions]) == list(range(100))
    with pytest.raises(DataError, match="fewer than the 66 labeled samples"):
        select(Labels(labels), config(66))
    with pytest.raises(DataError, match="no labels to balance"):
        select(Labels([-1, -1, 0]), config(1, limit=2))


def test_samples_of_which_none_has_a_label_have_no_labels():
    split = Labels([-1, 0, -1, -1])
    assert Samples(split, np.array([0, 1])).labels.tolist() == [-1, 0]
    assert Samples(split, np.array([2, 3])).labels is None
    assert Samples(split, np.array([2, 3])).labels_digest() is None


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="is empty"):
        select(Labels([]), config())
