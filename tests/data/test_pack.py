from __future__ import annotations

import fcntl
import gc
import io
import json
import os
import tracemalloc
import weakref

import h5py
import numpy as np
import pytest
from data_files import ListSource, image_bytes, noise
from PIL import Image

from pipeline.data import Item, PackedDataset, Unreadable, pack
from pipeline.errors import DataError
from pipeline.progress import Silent


def do_pack(source, path, unreadable="refuse"):
    return pack(source, path, Silent(), unreadable)


def arrays(n, *shape, seed=0, labels=True):
    images = noise(n, *shape, seed=seed)
    return [Item(image, i % 2 if labels else None, f"{i:03d}") for i, image in enumerate(images)]


def refused(source, path, **options) -> str:
    with pytest.raises(DataError) as error:
        do_pack(source, path, **options)
    assert not path.exists()
    assert list(path.parent.glob(".*.new")) == []  # nothing is left behind
    return str(error.value)


def test_images_of_one_size_become_one_array(tmp_path):
    path = tmp_path / "deep" / "x.h5"
    train, other = arrays(5, 4, 6, 3), arrays(2, 4, 6, 3, seed=1, labels=False)
    report = do_pack(ListSource(train=train, unlabeled=other), path)
    assert report.counts == {"train": 5, "unlabeled": 2}
    assert (report.path, report.image_shape, report.unreadable) == (path, (4, 6, 3), ())
    with h5py.File(path) as file:
        assert file["train/images"].dtype == np.uint8
        np.testing.assert_array_equal(file["train/images"][:], noise(5, 4, 6, 3))
        np.testing.assert_array_equal(file["train/labels"][:], [0, 1, 0, 1, 0])
        assert file["train/labels"].dtype == np.int64
        assert file["train/ids"].asstr()[:].tolist() == ["000", "001", "002", "003", "004"]
        assert set(file["unlabeled"]) == {"images", "ids"}
        assert json.loads(file.attrs["class_names"]) == ["cat", "dog"]
        assert file.attrs["source"] == "a list"


def test_more_images_than_a_block_keep_their_order(tmp_path):
    items = arrays(2500, 2, 2, 1)
    do_pack(ListSource(train=items), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file["train/images"][:], noise(2500, 2, 2, 1))
        assert file["train/ids"].asstr()[2499] == "2499"


def test_packing_twice_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        items = [*arrays(9, 4, 4, 3), Item(image_bytes(noise(5, 5, 3)), 1, "odd")]
        do_pack(ListSource(train=items, test=arrays(2, 3, 3, 1)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_coloured_image_among_grey_ones_makes_all_three_channels(tmp_path):
    grey, colour = noise(2, 4, 4, 1), noise(4, 4, 3, seed=1)
    items = [Item(grey[0], 0, "a"), Item(colour, 0, "b"), Item(grey[1], 1, "c")]
    assert do_pack(ListSource(train=items), tmp_path / "x.h5").image_shape == (4, 4, 3)
    with h5py.File(tmp_path / "x.h5") as file:
        images = file["train/images"][:]
    np.testing.assert_array_equal(images[1], colour)
    for channel in range(3):
        np.testing.assert_array_equal(images[[0, 2], :, :, channel], grey[..., 0])


def test_sizes_that_differ_only_in_a_later_split_make_all_splits_files(tmp_path):
    train, test = arrays(3, 4, 4, 3), arrays(2, 5, 4, 3, seed=1)
    assert do_pack(ListSource(train=train, test=test), tmp_path / "x.h5").image_shape is None
    with h5py.File(tmp_path / "x.h5") as file:
        for split, items in (("train", train), ("test", test)):
            for stored, item in zip(file[split]["images"][:], items, strict=True):
                with Image.open(io.BytesIO(stored.tobytes())) as image:
                    assert image.format == "PNG"
                    np.testing.assert_array_equal(np.array(image), item.image)


def test_jpeg_and_png_are_stored_as_they_are_and_others_as_png(tmp_path):
    files = [image_bytes(noise(6, 4 + i, 3, seed=i), kind) for i, kind in enumerate(("JPEG", "PNG", "BMP"))]
    items = [Item(file, 0, str(i)) for i, file in enumerate(files)]
    do_pack(ListSource(train=items), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        stored = [row.tobytes() for row in file["train/images"][:]]
    assert stored[:2] == files[:2]
    with Image.open(io.BytesIO(stored[2])) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.array(image), noise(6, 6, 3, seed=2))


@pytest.mark.parametrize(
    ("kind", "mode", "channels"),
    [("PNG", "L", 1), ("PNG", "1", 1), ("PNG", "LA", 1), ("PNG", "P", 3), ("PNG", "RGBA", 3), ("JPEG", "CMYK", 3)],
)
def test_every_mode_of_pillow_becomes_grey_or_rgb(tmp_path, kind, mode, channels):
    content = image_bytes(noise(8, 8, 3), kind, mode)
    do_pack(ListSource(train=[Item(content, 0, "a")]), tmp_path / "x.h5")
    images = PackedDataset.open(tmp_path / "x.h5").split("train").stored(np.array([0]))
    with Image.open(io.BytesIO(content)) as image:
        expected = np.array(image.convert("RGB" if channels == 3 else "L")).reshape(8, 8, channels)
    np.testing.assert_array_equal(images[0], expected)


def test_a_palette_with_transparency_is_no_warning(tmp_path):
    stream = io.BytesIO()
    Image.fromarray(noise(8, 8, 3)).convert("P").save(stream, "PNG", transparency=bytes(range(256)))
    assert do_pack(ListSource(train=[Item(stream.getvalue(), 0, "a")]), tmp_path / "x.h5").image_shape == (8, 8, 3)


def broken_items():
    good, jpeg = image_bytes(noise(16, 16, 3)), image_bytes(noise(64, 64, 3), "JPEG")
    wide = image_bytes(np.arange(64, dtype=np.float32).reshape(8, 8), "TIFF")
    return [
        Item(good, 0, "good"),
        Item(jpeg[: len(jpeg) // 2], 0, "cut.jpg"),
        Item(good[: len(good) // 2], 1, "cut.png"),
        Item(b"no image", 1, "text.png"),
        Item(b"", 1, "empty.png"),
        Item(wide, 1, "wide.tif"),
        Item(Unreadable("Permission denied"), 1, "locked.png"),
        Item(good, 1, "good2"),
    ]


@pytest.mark.parametrize("fixed", [True, False])
def test_all_unreadable_images_are_listed(tmp_path, fixed):
    more = [] if fixed else [Item(image_bytes(noise(3, 9, 3)), 0, "odd")]
    message = refused(ListSource(train=broken_items() + more, test=broken_items()[:2]), tmp_path / "x.h5")
    assert f"7 of {10 + len(more)} images cannot be read" in message
    for line in (
        "train/cut.jpg: image file is truncated",
        "train/cut.png: ",
        "train/text.png: not an image of a known format",
        "train/empty.png: the file is empty",
        "train/wide.tif: numbers 0..63, where 0..1 are read",
        "train/locked.png: Permission denied",
        "test/cut.jpg: image file is truncated",
    ):
        assert f"    {line}" in message
    assert "data.unreadable: skip" in message


@pytest.mark.parametrize("fixed", [True, False])
def test_unreadable_images_can_be_skipped_and_are_reported(tmp_path, fixed):
    more = [] if fixed else [Item(image_bytes(noise(3, 9, 3)), 0, "odd")]
    source = ListSource(train=broken_items() + more, test=broken_items()[:2])
    report = do_pack(source, tmp_path / "x.h5", "skip")
    assert len(report.unreadable) == 7
    assert report.unreadable[0].startswith("train/cut.jpg: image file is truncated")
    assert report.counts == {"train": 2 + len(more), "test": 1}
    assert report.image_shape == ((16, 16, 3) if fixed else None)
    split = PackedDataset.open(tmp_path / "x.h5").split("train")
    assert split.ids == ("good", "good2", "odd")[: split.count]
    assert split.labels.tolist() == [0, 1, 0][: split.count]
    for image in split.read(np.arange(2)):
        np.testing.assert_array_equal(image.permute(1, 2, 0), noise(16, 16, 3))


def test_bad_labels_ids_and_splits_are_refused(tmp_path):
    path, image = tmp_path / "x.h5", noise(2, 2, 3)

    def message(*items, **splits):
        return refused(ListSource(train=[Item(image, *item) for item in items], **splits), path)

    text = message((0, "a"), (2, "b"), (-2, "c"))
    assert "2 of 3 labels are out of range" in text
    assert "0..1 (2 classes)" in text
    assert "2 of 'b', -2 of 'c'" in text
    text = message((0, "a"), (1, "b"), (0, "a"))
    assert "1 ids occur more than once" in text
    assert "'a'" in text
    text = message((0, "a\0b"), (0, "\udcff"))
    for name in ("a\\x00b", "\\udcff"):
        assert f"train/{name}: its name is not text that UTF-8 can store" in text
    assert "split test has no images" in message((0, "a"), test=[])
    assert "there are no images" in refused(ListSource(), path)
    floats = ListSource(train=[Item(np.zeros((2, 2, 3)), 0, "f")])
    assert "float64 [2, 2, 3]" in refused(floats, path)


def test_samples_without_a_label_among_others_get_minus_one(tmp_path):
    image = noise(2, 2, 3)
    labels = [0, None, 1, -1]
    train = [Item(image, label, str(i)) for i, label in enumerate(labels)]
    do_pack(ListSource(train=train, unlabeled=[Item(image, -1, "a"), Item(image, None, "b")]), tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["train/labels"][:].tolist() == [0, -1, 1, -1]
        assert set(file["unlabeled"]) == {"images", "ids"}


@pytest.mark.parametrize("count", [2, 7])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_source_that_does_not_yield_what_it_counted_is_refused(tmp_path, count, fixed):
    class Changing(ListSource):
        def count(self, split):
            return count

    items = [*arrays(2, 2, 2, 1), Item(noise(2, 2 if fixed else 3, 1), 0, "last")]
    text = refused(Changing(train=items), tmp_path / "x.h5")
    assert "changed while it was packed" in text
    assert f"expected: {count}\n  got: 3" in text


def test_a_target_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    source = ListSource(train=arrays(2, 2, 2, 1))
    with pytest.raises(DataError, match=r"cannot be written(.|\n)*file/x.h5(.|\n)*got: ") as error:
        do_pack(source, tmp_path / "file" / "x.h5")
    assert "choose another data.path" in str(error.value)
    with pytest.raises(DataError, match=r"cannot be written(.|\n)*got: a folder"):
        do_pack(source, tmp_path)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x.h5"
    do_pack(ListSource(train=arrays(2, 2, 2, 1)), path)
    before = path.read_bytes()

    real = os.statvfs(tmp_path)
    full = os.statvfs_result([*real[:3], 100, 100, *real[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(DataError, match="No space left on device"):
        do_pack(ListSource(train=arrays(3, 2, 2, 1)), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def test_what_hdf5_cannot_write_is_an_error_too(tmp_path, monkeypatch):
    def fail(*args):
        raise RuntimeError("Can't decrement id ref count (errno = 27, error message = 'File too large')")

    monkeypatch.setattr(h5py.Dataset, "__setitem__", fail)
    assert "File too large" in refused(ListSource(train=arrays(3, 2, 2, 1)), tmp_path / "x.h5")


def test_what_a_killed_run_left_is_overwritten(tmp_path):
    (tmp_path / ".x.h5.new").write_bytes(b"half a file")
    do_pack(ListSource(train=arrays(2, 2, 2, 1)), tmp_path / "x.h5")
    assert PackedDataset.open(tmp_path / "x.h5").split("train").count == 2
    assert [p.name for p in tmp_path.iterdir()] == ["x.h5"]


def test_two_processes_do_not_pack_the_same_file(tmp_path):
    partial = tmp_path / ".x.h5.new"
    with partial.open("ab") as other:  # as another process holds it
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is packing"):
            do_pack(ListSource(train=arrays(2, 2, 2, 1)), tmp_path / "x.h5")
        assert partial.exists()  # it is theirs


def test_a_named_class_list_of_any_length_fits(tmp_path):
    names = [f"a class with a long name {i}" for i in range(22_000)]
    do_pack(ListSource(names, train=arrays(2, 2, 2, 1)), tmp_path / "x.h5")
    assert PackedDataset.open(tmp_path / "x.h5").class_names == tuple(names)


class Streaming:
    """Counts how many of its images are alive at once."""

    class_names, splits, description = ("a",), ("train",), "a stream"

    def __init__(self, n, encoded):
        self.n, self.encoded, self.alive, self.most = n, encoded, 0, 0

    def count(self, split):
        return self.n

    def items(self, split):
        for i in range(self.n):
            image = np.full((256, 256 + (i % 2 if self.encoded else 0), 3), i % 256, np.uint8)
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(image, self.gone)
            yield Item(image, 0, str(i))

    def gone(self):
        self.alive -= 1


@pytest.mark.parametrize("encoded", [True, False])
def test_memory_is_bounded_whatever_the_number_of_images(tmp_path, encoded):
    source = Streaming(300, encoded)  # 59 MB
    gc.collect()
    tracemalloc.start()
    try:
        report = do_pack(source, tmp_path / "x.h5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.counts == {"train": 300}
    assert (report.image_shape is None) == encoded
    assert source.most < 100  # a block and what the last one still holds
    assert peak < 40e6
