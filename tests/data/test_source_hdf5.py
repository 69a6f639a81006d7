from __future__ import annotations

import h5py
import numpy as np
import pytest
from data_files import image_bytes, noise, write_packed

from pipeline.data import Item, PackedDataset, open_source, pack
from pipeline.data.sources.hdf5 import Options
from pipeline.data.treatment import Treatment
from pipeline.errors import DataError
from pipeline.progress import Silent


def packed(tmp_path, **options) -> PackedDataset:
    source = open_source(Options(path=tmp_path / "in.h5", **options))
    pack(source, tmp_path / "out.h5", Silent())
    return PackedDataset.open(tmp_path / "out.h5")


def write(tmp_path, **arrays):
    with h5py.File(tmp_path / "in.h5", "w") as file:
        for name, value in arrays.items():
            file[name.replace("__", "/")] = value


def read(split) -> np.ndarray:
    return split.stored(np.arange(split.count))


def test_a_packed_data_set_packs_to_itself(tmp_path):
    write_packed(tmp_path / "in.h5")
    write_packed(tmp_path / "in.h5", labels=None, split="unlabeled")
    data = packed(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert data.splits == ("train", "unlabeled")
    assert data.split("train").ids == ("a", "b", "c")
    assert data.split("train").labels.tolist() == [0, 1, 0]
    assert data.split("unlabeled").labels is None
    np.testing.assert_array_equal(read(data.split("train")), noise(3, 4, 5, 3))
    assert data.source == "HDF5 file in.h5"


def test_other_names_in_groups(tmp_path):
    write(tmp_path, train__data=noise(2, 4, 4, 3), train__fine=[[1], [0]], test__data=noise(1, 4, 4, 3))
    data = packed(tmp_path, images="data", labels="fine")
    assert data.splits == ("test", "train")
    assert data.split("train").labels.tolist() == [1, 0]
    assert data.split("train").ids == ("train/000000", "train/000001")
    assert data.class_names == ("0", "1")


def test_names_with_the_split_inside(tmp_path):
    write(tmp_path, x_train=noise(2, 4, 4), y_train=[0, 1], x_test=noise(1, 4, 4), y_test=[1])
    data = packed(tmp_path, images="x_{split}", labels="y_{split}")
    assert data.split("train").image_shape == (4, 4, 1)
    assert data.split("test").labels.tolist() == [1]
    np.testing.assert_array_equal(read(data.split("train"))[..., 0], noise(2, 4, 4))


def test_arrays_without_a_split_are_the_training_split(tmp_path):
    write(tmp_path, images=noise(2, 3, 6, 5), labels=np.array([0, 2], np.uint8))
    data = packed(tmp_path)
    assert data.splits == ("train",)
    assert data.split("train").labels.tolist() == [0, 2]
    np.testing.assert_array_equal(read(data.split("train")), noise(2, 3, 6, 5).transpose(0, 2, 3, 1))


def test_image_files_in_rows(tmp_path):
    files = [image_bytes(noise(4, 4 + i, 3)) for i in range(3)]
    rows = np.empty(3, object)
    rows[:] = [np.frombuffer(file, np.uint8) for file in files]
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("images", data=rows, dtype=h5py.vlen_dtype(np.uint8))
    split = packed(tmp_path).split("train")
    assert split.image_shape is None
    assert [row.tobytes() for row in read(split)] == files


def refused(tmp_path, **options) -> str:
    with pytest.raises(DataError) as error:
        open_source(Options(path=tmp_path / "in.h5", **options))
    assert str(tmp_path / "in.h5") in str(error.value)
    return str(error.value)


def test_missing_and_not_hdf5(tmp_path):
    assert "there is no data set" in refused(tmp_path)
    (tmp_path / "in.h5").write_text("text")
    assert "not an HDF5 file" in refused(tmp_path)


def test_a_name_that_is_not_there_lists_those_that_are(tmp_path):
    write(tmp_path, train__x=noise(1, 2, 2), y=[1])
    message = refused(tmp_path)
    assert "no data set is named 'images'" in message
    assert "got: train/x, y" in message


def test_arrays_that_cannot_be_understood(tmp_path):
    write(tmp_path, images=np.zeros((2, 4, 4, 3), np.float32))
    assert "got: float32 [2, 4, 4, 3]" in refused(tmp_path)
    write(tmp_path, images=noise(2, 4, 4, 3), labels=[0])
    assert "labels does not fit the images" in refused(tmp_path)
    write(tmp_path, images=noise(2, 4, 4, 3), labels=[[0, 1], [1, 0]])
    assert "int64 [2, 2]" in refused(tmp_path)
    write(tmp_path, images=noise(2, 4, 4, 3), ids=[b"a"])
    assert "ids does not fit the images" in refused(tmp_path)


def test_external_links_are_refused(tmp_path):
    write(tmp_path)
    with h5py.File(tmp_path / "in.h5", "a") as file:
        file["images"] = h5py.ExternalLink("other.h5", "images")
    assert "/images is an external link" in refused(tmp_path)


def test_duplicate_ids_are_refused_when_packing(tmp_path):
    write(tmp_path, images=noise(2, 4, 4, 3), ids=[b"a", b"a"])
    with pytest.raises(DataError, match="1 ids occur more than once"):
        packed(tmp_path)


@pytest.mark.parametrize("first", [False, True])
def test_more_than_three_channels(tmp_path, first):
    images = noise(4, 9, 7, 5)
    write(tmp_path, train__images=images.transpose(0, 3, 1, 2) if first else images, train__labels=np.arange(4))
    split = packed(tmp_path).split("train")
    assert split.image_shape == (9, 7, 5)
    np.testing.assert_array_equal(read(split), images)
    assert split.read(np.arange(2)).shape == (2, 5, 9, 7)


def test_channels_that_are_not_images(tmp_path):
    write(tmp_path, train__images=noise(2, 30, 40, 17), train__labels=np.arange(2))
    with pytest.raises(DataError, match="at most 16 channels"):
        packed(tmp_path)
    item = Item(noise(30, 40, 4), 0, "a")
    with pytest.raises(DataError, match="an image has 4 channels, which no image file holds"):
        Treatment(shorter_side=8)(item, as_files=False)
    with pytest.raises(DataError, match="all images in one size"):
        Treatment()(item, as_files=True)  # since another image had another size
