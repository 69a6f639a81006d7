from __future__ import annotations

from pathlib import Path

import pytest
from data_files import write_packed

from pipeline.config import bind
from pipeline.data import DataConfig, PackedDataset
from pipeline.data.class_names import read_class_names
from pipeline.errors import ConfigError, DataError


def written(folder: Path, content: bytes | str) -> Path:
    path = folder / "names"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def opened(path: Path, classes: object) -> PackedDataset:
    return PackedDataset.of(DataConfig.model_validate({"path": path, "classes": classes}))


@pytest.mark.parametrize(
    "content",
    ["cat\ndog\n", "\ufeffcat\r\n\r\n  dog ", '["cat", "dog"]', '\n[ "cat",\n"dog"]'],
)
def test_names_are_lines_or_a_list(tmp_path: Path, content: str):
    assert read_class_names(written(tmp_path, content)) == ("cat", "dog")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ("", "no name"),
        ("[]", "no name"),
        ("cat\ndog\ncat", "'cat' more than once"),
        ('["cat", 1]', "a list of other things"),
        ('["cat"', "delimiter"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path: Path, content: bytes | str, got: str):
    with pytest.raises(DataError, match=got) as error:
        read_class_names(written(tmp_path, content))
    assert "expected: a JSON list of names, or one name in each line" in str(error.value)


def test_a_file_of_names_that_is_not_there(tmp_path: Path):
    with pytest.raises(DataError, match="No such file"):
        read_class_names(tmp_path / "none")


def test_classes_are_said_where_the_file_does_not(tmp_path: Path):
    path = write_packed(tmp_path / "x.h5", labels=None, class_names=None)
    assert PackedDataset.open(path).class_names == ()
    assert opened(path, 3).class_names == ("0", "1", "2")
    assert opened(path, str(written(tmp_path, "cat\ndog"))).class_names == ("cat", "dog")
    empty = write_packed(tmp_path / "y.h5", labels=None, class_names="[]")  # as packing writes them
    assert opened(empty, 3).class_names == ("0", "1", "2")


def test_numbered_labels_leave_room_for_more_classes(tmp_path: Path):
    path = write_packed(tmp_path / "x.h5", class_names=None)
    assert opened(path, None).class_names == ("0", "1")
    assert opened(path, 5).class_names == ("0", "1", "2", "3", "4")
    with pytest.raises(DataError, match=r"a label is beyond data\.classes\n(.|\n)*expected: labels 0 to 0\n  got: 1"):
        opened(path, 1)


def test_classes_that_disagree_with_the_file_are_refused(tmp_path: Path):
    path = write_packed(tmp_path / "x.h5")
    assert opened(path, 2).class_names == ("cat", "dog")
    assert opened(path, written(tmp_path, "cat\ndog")).class_names == ("cat", "dog")
    with pytest.raises(DataError, match="another number of classes") as error:
        opened(path, 3)
    assert "expected: the 2 of the packed data set\n  got: 3" in str(error.value)
    with pytest.raises(DataError, match="expected: 'cat' as class 0\n  got: 'dog'"):
        opened(path, written(tmp_path, "dog\ncat"))


@pytest.mark.parametrize("number", [0, -1, 2**20 + 1])
def test_a_number_of_classes_that_is_none(number: int):
    with pytest.raises(ConfigError) as error:
        bind({"path": "a.h5", "classes": number}, DataConfig, ["path", "classes"])
    (problem,) = error.value.problems
    assert (problem.key, problem.what) == ("classes", "the number of classes is between 1 and 1,048,576")
