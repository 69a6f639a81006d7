"""Real data, where they are."""

from __future__ import annotations

import hashlib
import time

import h5py
import numpy as np
import pytest
from shared import shared_file

from pipeline.data import DataConfig, HoldoutConfig, PackedDataset, Samples, open_source, pack, select
from pipeline.progress import Silent


@pytest.mark.long
def test_fashion_mnist_packs_digests_and_splits(tmp_path):
    path = shared_file("data/fashion_mnist.h5")
    config = DataConfig(
        path=tmp_path / "x.h5", source={"name": "hdf5", "path": path}, holdout=HoldoutConfig(count=5000)
    )
    report = pack(open_source(config.source), config.path, Silent())
    assert report.counts == {"train": 60000, "test": 10000}
    original, copy = PackedDataset.open(path), PackedDataset.open(config.path)
    assert copy.class_names == original.class_names
    for name in copy.splits:
        ours, theirs = Samples(copy.split(name)), Samples(original.split(name))
        assert ours.pixel_digest() == theirs.pixel_digest()
        assert ours.ids_digest() == theirs.ids_digest()
        assert ours.labels_digest() == theirs.labels_digest()
    samples, holdout = select(copy, config)
    assert np.bincount(holdout.labels).tolist() == [500] * 10
    assert samples.count == 55000


def test_cifar100_is_read_as_it_is_stored():
    path = shared_file("data/cifar100.h5")
    data = PackedDataset.open(path)
    samples = Samples(data.split("train"), np.arange(2000))
    with h5py.File(path) as file:
        content = b"pixels uint8 2000 32 32 3\n" + file["train/images"][:2000].tobytes()
    assert samples.pixel_digest() == "sha256:" + hashlib.sha256(content).hexdigest()
    assert len(data.class_names) == 100
    assert data.split("test").count == 10000


@pytest.mark.long
def test_cifar100_is_digested_in_seconds():
    samples = Samples(PackedDataset.open(shared_file("data/cifar100.h5")).split("train"))
    start = time.process_time()
    samples.pixel_digest()
    assert time.process_time() - start < 30  # about one; per-image reads take minutes
