from __future__ import annotations

import csv
import hashlib
import io
import pickle
import struct
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from data_files import ListSource, image_bytes, noise, write_packed

from pipeline.data import Item, PackedDataset, Samples, pack
from pipeline.progress import Silent


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


def test_samples_of_which_none_has_a_label_have_no_labels():
    split = SimpleNamespace(count=4, labels=np.array([-1, 0, -1, -1]))
    assert Samples(split, np.array([0, 1])).labels.tolist() == [-1, 0]
    assert Samples(split, np.array([2, 3])).labels is None
    assert Samples(split, np.array([2, 3])).labels_digest() is None


def test_a_listing_has_a_row_for_every_sample(tmp_path):
    path = write_packed(tmp_path / "x.h5", ids=("a", 'b,"c"', "d\ne"), labels=[1, -1, 0])
    samples = Samples(PackedDataset.open(path).split("train"))
    rows = list(csv.reader(io.StringIO(samples.listing())))
    assert rows == [["split", "id", "label"], ["train", "a", "1"], ["train", 'b,"c"', "-1"], ["train", "d\ne", "0"]]
