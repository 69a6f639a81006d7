from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from pipeline.data import DataConfig, PackedDataset, open_source, pack
from pipeline.progress import Silent


def test_the_digits_are_those_of_scikit_learn(tmp_path):
    source = open_source(DataConfig(path="x", source={"name": "digits"}).source)
    report = pack(source, tmp_path / "x.h5", Silent())
    assert report.counts == {"train": 1437, "test": 360}
    assert report.image_shape == (8, 8, 1)
    data = PackedDataset.open(tmp_path / "x.h5")
    assert data.class_names == tuple("0123456789")
    assert data.source == "scikit-learn digits"
    original = load_digits()
    seen = []
    for name in ("train", "test"):
        split = data.split(name)
        positions = [int(text.removeprefix("digits/")) for text in split.ids]
        seen += positions
        pixels = split.stored(np.arange(split.count))[..., 0]
        assert np.max(np.abs(pixels - original.images[positions] * 255 / 16)) <= 0.5
        np.testing.assert_array_equal(split.labels, original.target[positions])
    assert sorted(seen) == list(range(1797))
    assert np.bincount(data.split("test").labels).tolist() == [36] * 10


def test_values_use_the_whole_range():
    source = open_source(DataConfig(path="x", source={"name": "digits"}).source)
    images = np.stack([item.image for item in source.items("train")])
    assert len(np.unique(images)) == 17
    assert (images.min(), images.max()) == (0, 255)
