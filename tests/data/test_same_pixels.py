from __future__ import annotations

import numpy as np
from data_files import ListSource, image_bytes, noise

from pipeline.data import Item, PackedDataset, pack
from pipeline.data.same_pixels import hash_pixels, repeated_images
from pipeline.progress import Silent


def found(folder, **splits):
    report = pack(ListSource(**splits), folder / "x.h5", Silent())
    return repeated_images(PackedDataset.open(report.path), report.hashes)


def test_hashes_are_of_size_and_pixels():
    image = noise(4, 6, 3)
    assert hash_pixels(image) == hash_pixels(np.asfortranarray(image))
    others = [noise(4, 6, 3, seed=1), image.reshape(6, 4, 3), image.reshape(24, 3, 1)]
    assert len({hash_pixels(image), *map(hash_pixels, others)}) == 4


def test_images_that_are_there_more_than_once_are_found(tmp_path):
    a, b, c, d = (noise(5, 4, 3, seed=seed) for seed in range(4))
    train = [Item(a, 0, "a"), Item(b, 1, "b"), Item(a.copy(), 0, "a again"), Item(c, 0, "c")]
    test = [Item(b, 0, "b"), Item(d, 1, "d"), Item(noise(5, 4, 3, seed=9), None, "e")]
    twice, once = found(tmp_path, train=train, test=test)
    assert once.samples == (("train", "b"), ("test", "b"))
    assert (once.splits, once.labels, once.contradictory) == (("train", "test"), (1, 0), True)
    assert twice.samples == (("train", "a"), ("train", "a again"))
    assert (twice.splits, twice.labels, twice.contradictory) == (("train",), (0, 0), False)


def test_the_file_format_is_nothing_to_the_pixels(tmp_path):
    a, other = noise(5, 4, 3), noise(7, 4, 3)
    train = [Item(image_bytes(a, "PNG"), 0, "png"), Item(image_bytes(other), 0, "other")]
    (pair,) = found(tmp_path, train=train, test=[Item(image_bytes(a, "BMP"), None, "bmp")])
    assert pair.samples == (("train", "png"), ("test", "bmp"))
    assert (pair.labels, pair.contradictory) == ((0, -1), False)


def test_hashes_are_those_of_the_samples_that_were_packed(tmp_path):
    """Unreadable ones have none, and packing again for another layout begins anew."""
    files = [image_bytes(noise(4, 4 + i % 2, 3, seed=i % 5)) for i in range(20)]
    items = [Item(b"no image" if i == 3 else file, 0, f"{i:02d}") for i, file in enumerate(files)]
    report = pack(ListSource(train=items), tmp_path / "x.h5", Silent(), "skip")
    assert len(report.hashes["train"]) == 16 * 19
    groups = repeated_images(PackedDataset.open(report.path), report.hashes)
    ids = [[int(name) for _, name in each.samples] for each in groups]
    expected = [[i for i in range(20) if i % 10 == k and i != 3] for k in range(10)]
    assert ids == [group for group in expected if len(group) > 1]


def test_nothing_is_there_twice(tmp_path):
    assert found(tmp_path, train=[Item(noise(4, 4, 1, seed=i), 0, str(i)) for i in range(3)]) == []
