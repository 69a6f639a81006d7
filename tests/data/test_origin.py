from __future__ import annotations

import json

import h5py
import pytest
from data_files import ListSource, image_bytes, noise, write_packed

from pipeline.data import DataConfig, Item, Origin, PackedDataset, SourceOptions, open_source, pack
from pipeline.errors import DataError
from pipeline.progress import Silent


def config(path, source, **more) -> DataConfig:
    return DataConfig.model_validate({"path": path, "source": source, **more})


def options(source) -> SourceOptions:
    found = config("x.h5", source).source
    assert found is not None
    return found


def test_a_packed_file_remembers_all_options_and_what_was_skipped(tmp_path):
    good, broken = Item(image_bytes(noise(4, 4, 3)), 0, "good"), Item(b"", 1, "broken")
    folder = options({"name": "image-folder", "path": "photos"})
    path = tmp_path / "x.h5"
    pack(ListSource(train=[good, broken], test=[good]), path, Silent(), "skip", folder)
    with h5py.File(path) as file:
        text = file.attrs["packed_from"]
    expected = {"source": {"name": "image-folder", "path": "photos"}, "skipped": {"test": 0, "train": 1}}
    assert json.loads(text) == expected
    assert text == json.dumps(expected, sort_keys=True)
    origin = PackedDataset.open(path).origin
    assert origin == Origin(**expected)
    assert origin.to_text() == text


def test_packing_the_same_again_gives_the_same_bytes(tmp_path):
    digits = options({"name": "digits"})
    for name in ("a", "b"):
        pack(open_source(digits), tmp_path / name, Silent(), options=digits)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_source_without_options_leaves_no_record(tmp_path):
    pack(ListSource(train=[Item(noise(2, 2, 1), 0, "a")]), tmp_path / "x.h5", Silent())
    assert PackedDataset.open(tmp_path / "x.h5").origin is None


@pytest.mark.parametrize(
    "text",
    [
        "scikit-learn digits",
        "[]",
        "{}",
        '{"source": {}}',
        '{"source": [], "skipped": {}}',
        '{"source": {}, "skipped": []}',
        '{"source": {}, "skipped": {"train": "1"}}',
        '{"source": {}, "skipped": {"train": true}}',
        '{"source": {}, "skipped": {}, "more": 1}',
        "[" * 100_000,
    ],
)
def test_a_record_that_is_none_of_ours_counts_as_none(tmp_path, text):
    path = write_packed(tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        file.attrs["packed_from"] = text
    assert Origin.read(text) is None
    assert PackedDataset.of(config(path, {"name": "digits"})).origin is None


H5 = {"name": "hdf5", "path": "raw.h5"}
CIFAR = {"name": "torchvision", "dataset": "CIFAR10"}


@pytest.mark.parametrize(
    ("then", "now", "keys"),
    [
        (H5, H5, []),
        (H5, {**H5, "path": "./raw.h5"}, []),
        (H5, {**H5, "images": "images"}, []),  # the default, written out
        (H5, {**H5, "path": "other.h5"}, ["path"]),
        (H5, {**H5, "path": "other.h5", "labels": "y"}, ["labels", "path"]),
        (H5, CIFAR, ["name"]),
        (CIFAR, {**CIFAR, "dataset": "CIFAR100"}, ["dataset"]),
        (CIFAR, {**CIFAR, "root": "downloads", "download": False}, []),  # how the same images are had
        (CIFAR, {**CIFAR, "options": {"split": "letters"}}, ["options"]),
        (CIFAR, {**CIFAR, "splits": {"train": "extra"}}, ["splits"]),
    ],
)
def test_what_makes_another_source(then, now, keys):
    origin = Origin(options(then).identity(), {"train": 0})
    lines = origin.differences(options(now), "refuse")
    assert [line.partition(":")[0] for line in lines] == [f"data.source.{key}" for key in keys]


def test_options_that_only_one_side_has_are_named():
    origin = Origin({"name": "digits", "old": 1}, {})
    assert origin.differences(options({"name": "digits"}), "refuse") == ["data.source.old: expected nothing, got 1"]


def test_images_that_were_skipped_are_another_data_set_than_one_that_refuses_them():
    digits = options({"name": "digits"})
    origin = Origin(digits.identity(), {"train": 2, "test": 1})
    assert origin.differences(digits, "skip") == []
    (line,) = origin.differences(digits, "refuse")
    assert line.startswith("data.unreadable: expected refuse")
    assert "3 images" in line
    assert Origin(digits.identity(), {"train": 0}).differences(digits, "skip") == []


def test_a_packed_file_is_held_against_the_configuration(tmp_path):
    path, digits = tmp_path / "x.h5", options({"name": "digits"})
    pack(open_source(digits), path, Silent(), options=digits)
    for source in (None, {"name": "digits"}):
        assert PackedDataset.of(config(path, source)).split("test").count == 360
    with pytest.raises(DataError) as error:
        PackedDataset.of(config(path, H5))
    assert str(error.value).splitlines()[:3] == [
        "the data set was packed from something else",
        '  - data.source.name: expected "hdf5", got "digits"',
        f"  where: {path}",
    ]
