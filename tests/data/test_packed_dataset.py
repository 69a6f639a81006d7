from __future__ import annotations

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest
import torch
from data_files import ListSource, image_bytes, noise, write_packed
from experiment import one_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import Item, PackedDataset, h5, pack
from pipeline.errors import DataError
from pipeline.progress import Silent


def refused(path) -> str:
    with pytest.raises(DataError) as error:
        PackedDataset.open(path)
    assert str(path) in str(error.value)
    return str(error.value)


@pytest.fixture(params=["plain", "gzip", "files"])
def stored(request, tmp_path):
    """A data set of 50 images in each way of storing, and the pixels [50, H, W, C] that it was made of."""
    pixels = noise(50, 3, 4, 3)
    images = pixels
    with h5py.File(tmp_path / "x.h5", "w") as file:
        group = file.create_group("train")
        if request.param == "files":
            images = np.empty(50, object)
            for i in range(50):
                images[i] = np.frombuffer(image_bytes(pixels[i]), np.uint8)
            group.create_dataset("images", data=images, dtype=h5py.vlen_dtype(np.uint8), chunks=(7,))
        else:
            compression = {"compression": "gzip", "chunks": (7, 3, 4, 3)} if request.param == "gzip" else {}
            group.create_dataset("images", data=images, **compression)
        group["labels"] = np.arange(50, dtype=np.int32) % 3
        group.create_dataset("ids", data=[f"s{i}" for i in range(50)], dtype=h5py.string_dtype())
    return PackedDataset.open(tmp_path / "x.h5"), pixels


def hwc(images) -> np.ndarray:
    return torch.stack(list(images)).permute(0, 2, 3, 1).numpy()


def test_what_the_file_says(tmp_path):
    path = write_packed(tmp_path / "x.h5")
    write_packed(path, images=noise(2, 6, 6, 1), labels=None, ids=("é", "f"), split="unlabeled")
    data = PackedDataset.open(path)
    assert data.path == path
    assert data.class_names == ("cat", "dog")
    assert data.source == "a test"
    assert data.splits == ("train", "unlabeled")
    train, unlabeled = data.split("train"), data.split("unlabeled")
    assert (train.name, train.count, train.image_shape) == ("train", 3, (4, 5, 3))
    assert train.labels.dtype == np.int64
    assert train.ids == ("a", "b", "c")
    assert unlabeled.labels is None
    assert unlabeled.ids == ("é", "f")
    assert unlabeled.image_shape == (6, 6, 1)
    assert unlabeled.read(np.array([1])).shape == (1, 1, 6, 6)


@given(positions=st.lists(st.integers(0, 49), max_size=80))
@settings(max_examples=40, deadline=None)
def test_any_positions_in_any_order_are_read(stored_ways, positions):
    for data, pixels in stored_ways:
        images = data.split("train").read(np.array(positions, np.int64))
        assert len(images) == len(positions)
        if positions:
            np.testing.assert_array_equal(hwc(images), pixels[positions])


@pytest.fixture(scope="module")
def stored_ways(tmp_path_factory):
    pixels = noise(50, 3, 4, 3)
    ways = []
    for name, options in (("plain", {}), ("gzip", {"compression": "gzip", "chunks": (7, 3, 4, 3)})):
        path = tmp_path_factory.mktemp(name) / "x.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("train/images", data=pixels, **options)
            file.create_dataset("train/ids", data=[str(i) for i in range(50)], dtype=h5py.string_dtype())
        ways.append((PackedDataset.open(path), pixels))
    path = tmp_path_factory.mktemp("files") / "x.h5"
    items = [Item(image_bytes(image), None, str(i)) for i, image in enumerate(pixels)]
    pack(ListSource(train=items, test=[Item(noise(9, 9, 3), None, "x")]), path, Silent())
    return [*ways, (PackedDataset.open(path), pixels)]


def test_many_files_are_asked_for_together(stored, monkeypatch):
    data, pixels = stored
    monkeypatch.setattr(h5, "_VALUES_AT_ONCE", 4)
    positions = np.random.default_rng(0).permutation(50)[:23]
    assert np.array_equal(hwc(data.split("train").read(positions)), pixels[positions])
    assert len(data.split("train").read(np.array([49]))) == 1


def test_images_lie_in_memory_of_their_own(stored):
    data, pixels = stored
    images = data.split("train").read(np.arange(5))
    for image in images:
        assert image.dtype == torch.uint8
        assert image.is_contiguous() or image.permute(1, 2, 0).is_contiguous()  # those of files
        image.zero_()
    np.testing.assert_array_equal(hwc(data.split("train").read(np.arange(5))), pixels[:5])


def test_positions_outside_the_split_are_refused(stored):
    split = stored[0].split("train")
    for position in (-1, 50):
        with pytest.raises(IndexError, match=r"0\.\.49"):
            split.read(np.array([0, position]))


def test_grey_files_are_repeated_to_three_channels(tmp_path):
    grey, colour = noise(4, 4), noise(5, 5, 3)
    items = [Item(image_bytes(grey), 0, "a"), Item(image_bytes(colour), 0, "b")]
    pack(ListSource(train=items), tmp_path / "x.h5", Silent())
    first, second = PackedDataset.open(tmp_path / "x.h5").split("train").read(np.array([0, 1]))
    assert second.shape == (3, 5, 5)
    for channel in first:
        np.testing.assert_array_equal(channel, grey)


def test_decoding_with_threads_changes_nothing(stored):
    data, pixels = stored
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        np.testing.assert_array_equal(hwc(data.split("train").read(np.arange(50)[::-1])), pixels[::-1])
    finally:
        torch.set_num_threads(before)


def test_it_survives_pickling_also_after_reading(stored):
    data, pixels = stored
    data.split("train").read(np.array([3]))
    split = data.split("train")
    content = pickle.dumps(split)
    assert len(content) < 3000  # neither pixels nor ids travel
    again = pickle.loads(content)
    assert again.ids == split.ids
    np.testing.assert_array_equal(again.labels, split.labels)
    np.testing.assert_array_equal(hwc(again.read(np.arange(50))), pixels)
    assert pickle.loads(pickle.dumps(data)).splits == ("train",)


@pytest.fixture
def one_torch_thread():
    with one_thread():
        yield


def _digest_in_child(split, queue):
    queue.put(hwc(split.read(np.arange(50))).tobytes())


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking with threads is what is tested
def test_it_survives_forking_with_the_file_open(stored, one_torch_thread):
    data, pixels = stored
    split = data.split("train")
    split.read(np.array([1]))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_digest_in_child, args=(split, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=600) for _ in children] == [pixels.tobytes()] * 2
    for child in children:
        child.join()
    np.testing.assert_array_equal(hwc(split.read(np.arange(50))), pixels)


def test_class_names_are_numbered_where_the_file_has_none(tmp_path):
    path = write_packed(tmp_path / "x.h5", class_names=None, labels=[0, 4, 1])
    assert PackedDataset.open(path).class_names == ("0", "1", "2", "3", "4")
    other = write_packed(tmp_path / "y.h5", class_names=None, labels=None)
    assert PackedDataset.open(other).class_names == ()


def test_names_as_bytes_and_fixed_length_strings_are_read(tmp_path):
    path = write_packed(tmp_path / "x.h5", ids=None, class_names=np.bytes_(b'["a", "b"]'))
    with h5py.File(path, "a") as file:
        file["train/ids"] = np.array([b"x", b"yy", b"zzz"])
    data = PackedDataset.open(path)
    assert data.split("train").ids == ("x", "yy", "zzz")
    assert data.class_names == ("a", "b")


def test_an_unknown_split_names_those_there_are(tmp_path):
    path = write_packed(tmp_path / "x.h5")
    write_packed(path, split="test")
    with pytest.raises(DataError, match=r"no split 'tets'(.|\n)*one of test, train(.|\n)*did you mean 'test'"):
        PackedDataset.open(path).split("tets")


def test_missing_file(tmp_path):
    message = refused(tmp_path / "none.h5")
    assert "there is no data set" in message
    assert "prepare-data" in message


def test_not_a_file_and_not_hdf5(tmp_path):
    assert "cannot be read" in refused(tmp_path)
    (tmp_path / "x.h5").write_text("id,label\n")
    assert "not an HDF5 file" in refused(tmp_path / "x.h5")


def test_a_cut_file(tmp_path):
    path = write_packed(tmp_path / "x.h5", images=noise(3, 64, 64, 3))
    path.write_bytes(path.read_bytes()[:-5000])
    assert "cut off or damaged" in refused(path)


def test_hdf5_but_not_packed(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x_train"] = np.zeros(3)
    message = refused(tmp_path / "x.h5")
    assert "not a packed data set" in message
    assert "got: x_train" in message
    assert "name: hdf5" in message


@pytest.mark.parametrize("missing", ["images", "ids", "images and ids"])
def test_missing_parts_are_named(tmp_path, missing):
    path = write_packed(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        for part in missing.split(" and "):
            del file["train"][part]
    assert " and ".join(f"train/{p}" for p in missing.split(" and ")) + " missing" in refused(path)


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (np.zeros((3, 4, 4, 3), np.float32), "float32 [3, 4, 4, 3]"),
        (noise(3, 4, 4), "uint8 [3, 4, 4]"),
        (noise(3, 4, 4, 4), "uint8 [3, 4, 4, 4]"),
        (noise(3, 0, 4, 3), "uint8 [3, 0, 4, 3]"),
        (np.zeros(3, np.uint8), "uint8 [3]"),
    ],
)
def test_arrays_that_are_no_images(tmp_path, images, got):
    message = refused(write_packed(tmp_path / "x.h5", images=images))
    assert "/train/images does not hold images" in message
    assert f"got: {got}" in message


def test_labels_and_ids_that_do_not_fit(tmp_path):
    assert "train/labels does not fit" in refused(write_packed(tmp_path / "a.h5", labels=[0, 1]))
    assert "float64 [3]" in refused(write_packed(tmp_path / "b.h5", labels=[0.0, 1.0, 1.0]))
    message = refused(write_packed(tmp_path / "c.h5", ids=("a", "b")))
    assert "train/ids does not fit" in message
    assert "expected: 3" in message
    path = write_packed(tmp_path / "d.h5", ids=None)
    with h5py.File(path, "a") as file:
        file["train/ids"] = [1, 2, 3]
    assert "does not hold strings" in refused(path)
    path = write_packed(tmp_path / "e.h5", ids=None)
    with h5py.File(path, "a") as file:
        file["train/ids"] = np.array([b"a", b"\xff", b"c"])
    assert "not UTF-8" in refused(path)
    path = write_packed(tmp_path / "f.h5", labels=None)
    with h5py.File(path, "a") as file:
        file.create_group("train/labels")
    assert "train/labels is not an array" in refused(path)


def test_labels_out_of_range(tmp_path):
    message = refused(write_packed(tmp_path / "x.h5", labels=[0, 2, -2]))
    assert "2 of 3 labels are out of range" in message
    assert "split 'train'" in message
    assert "0..1 (2 classes), or -1 for a sample without a label" in message
    assert "2 of 'b', -2 of 'c'" in message


def test_samples_without_a_label_have_minus_one(tmp_path):
    some = PackedDataset.open(write_packed(tmp_path / "some.h5", labels=[0, -1, 1])).split("train")
    assert some.labels.tolist() == [0, -1, 1]
    none = PackedDataset.open(write_packed(tmp_path / "none.h5", labels=[-1, -1, -1])).split("train")
    assert none.labels is None


def test_duplicate_ids(tmp_path):
    message = refused(write_packed(tmp_path / "x.h5", ids=("a", "b", "a")))
    assert "1 ids occur more than once" in message
    assert "got: 'a'" in message


def test_class_names_that_are_not_json(tmp_path):
    for index, text in enumerate(("cat, dog", '{"cat": 0}', "[1, 2]")):
        message = refused(write_packed(tmp_path / f"{index}.h5", class_names=text))
        assert "class_names cannot be used" in message
        assert text in message


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("place", ["train", "train/images", "train/ids", "train/labels"])
def test_links_are_refused_without_being_followed(tmp_path, place, exists):
    other = tmp_path / "other.h5"
    if exists:
        write_packed(other)
    for kind, link in (("external", h5py.ExternalLink(str(other), place)), ("soft", h5py.SoftLink("/real"))):
        path = write_packed(tmp_path / f"{kind}.h5")
        with h5py.File(path, "a") as file:
            if exists:
                file["real"] = file[place]
            del file[place]
            file[place] = link
        message = refused(path)
        assert f"/{place} is a" in message
        assert f"{kind} link" in message


def test_data_in_other_files_are_refused(tmp_path):
    path = write_packed(tmp_path / "a.h5")
    (tmp_path / "raw").write_bytes(bytes(180))
    with h5py.File(path, "a") as file:
        del file["train/images"]
        raw = [(str(tmp_path / "raw"), 0, 180)]
        file["train"].create_dataset("images", (3, 4, 5, 3), np.uint8, external=raw)
    assert "/train/images lies outside the file" in refused(path)
    path, layout = write_packed(tmp_path / "b.h5"), h5py.VirtualLayout((3, 4, 5, 3), np.uint8)
    layout[:] = h5py.VirtualSource(str(tmp_path / "a.h5"), "train/images", (3, 4, 5, 3))
    with h5py.File(path, "a") as file:
        del file["train/images"]
        file["train"].create_virtual_dataset("images", layout)
    assert "/train/images lies outside the file" in refused(path)


def test_a_damaged_image_names_the_sample(tmp_path):
    path = tmp_path / "x.h5"
    items = [Item(image_bytes(noise(9, 9 + i, 3)), 0, f"s{i}") for i in range(2)]
    pack(ListSource(train=items), path, Silent())
    with h5py.File(path, "a") as file:
        file["train/images"][1] = file["train/images"][1][:60]
    split = PackedDataset.open(path).split("train")
    with pytest.raises(DataError, match=r"cannot be decoded(.|\n)*x.h5, split 'train', sample 's1'"):
        split.read(np.array([0, 1]))


def test_a_damaged_chunk_is_an_error_that_names_the_file(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(write_packed(path), "a") as file:
        del file["train/images"]
        options = {"chunks": (1, 4, 5, 3), "compression": "gzip", "fletcher32": True}
        images = file.create_dataset("train/images", data=noise(3, 4, 5, 3), **options)
        offset = images.id.get_chunk_info(1).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 5] ^= 0xFF
    path.write_bytes(content)
    split = PackedDataset.open(path).split("train")
    split.read(np.array([0]))
    with pytest.raises(DataError, match=r"train/images cannot be read(.|\n)*x.h5(.|\n)*pack it again"):
        split.read(np.array([1]))


def test_a_file_replaced_during_a_run_is_noticed(tmp_path):
    path = write_packed(tmp_path / "x.h5")
    split = PackedDataset.open(path).split("train")
    path.unlink()
    write_packed(path, images=noise(3, 9, 9, 3))
    with pytest.raises(DataError, match="replaced while it was in use"):
        split.read(np.array([0]))
