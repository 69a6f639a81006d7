"""What every data source must do; finds each file of pipeline/data/sources by itself.

A source whose options have no default needs a line in `MADE`: what there is to read, and the options that name it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from pipeline import plugins
from pipeline.config import Section, bind, resolved
from pipeline.data.config import DataConfig
from pipeline.data.source import SOURCE_PACKAGE, DataSource, SourceOptions, Unreadable, open_source
from pipeline.errors import ConfigError, DataError

NAMES = plugins.names(SOURCE_PACKAGE)
FILES = [(split, label, number) for split in ("train", "test") for label in ("cat", "dog") for number in range(2)]


def photos(folder: Path) -> Path:
    for split, label, number in FILES:
        file = folder / split / label / f"{label}_{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4 + number, 5), (number, 0, 0)).save(file)
    return folder


def table(folder: Path) -> dict[str, Any]:
    photos(folder)
    rows = [f"{split}/{label}/{label}_{number}.png,{label},{split}\n" for split, label, number in FILES]
    (folder / "labels.csv").write_text("path,label,split\n" + "".join(rows))
    return {"path": folder, "labels": folder / "labels.csv"}


def lists(folder: Path) -> dict[str, Any]:
    photos(folder)
    for wanted in ("train", "test"):
        lines = [f"{split}/{label}/{label}_{n}.png {label}\n" for split, label, n in FILES if split == wanted]
        (folder / f"{wanted}.txt").write_text("".join(lines))
    return {"path": folder, "lists": {split: folder / f"{split}.txt" for split in ("train", "test")}}


def arrays(folder: Path) -> dict[str, Any]:
    with h5py.File(folder / "images.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"] = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), np.uint8)
            file[f"{split}/labels"] = np.array([0, 1, 0, 1])
    return {"path": folder / "images.h5"}


MADE: dict[str, Callable[[Path], dict[str, Any]]] = {
    "csv-labels": table,
    "file-names": lambda folder: {"path": photos(folder), "pattern": "{label}_{id}.png"},
    "hdf5": arrays,
    "image-folder": lambda folder: {"path": photos(folder)},
    "split-files": lists,
}
ELSEWHERE = {"torchvision": "its files are downloads: tests/data/test_source_torchvision.py makes them"}

OPENED = [name for name in NAMES if name not in ELSEWHERE]


class Sections(Section):
    data: DataConfig


def bound(choice: Any) -> SourceOptions:
    source = bind({"data": {"path": "x.h5", "source": choice}}, Sections, ["data"]).data.source
    assert source is not None
    return source


def options_of(name: str, folder: Path) -> SourceOptions:
    """Of a source that can be opened: its defaults, or what is made for it."""
    given = MADE[name](folder) if name in MADE else {}
    return bound({"name": name, **given})


@pytest.fixture(params=OPENED)
def options(request: pytest.FixtureRequest, tmp_path: Path) -> SourceOptions:
    return options_of(request.param, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_name_is_the_file(name: str) -> None:
    options = plugins.load(SOURCE_PACKAGE, name, "name").Options
    assert options.model_fields["name"].default == name
    assert issubclass(options, SourceOptions)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_options_are_refused_at_their_key(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        bound({"name": name, "no_such_option": 1})
    assert "data.source.no_such_option" in [problem.key for problem in error.value.problems]


def test_options_read_back_as_themselves(options: SourceOptions) -> None:
    text = json.dumps(resolved(options))
    assert bound(json.loads(text)) == options
    identity = options.identity()
    assert json.loads(json.dumps(identity)) == identity
    assert identity["name"] == options.name


def assert_sound(source: DataSource, split: str) -> None:
    items = list(source.items(split))
    assert source.count(split) == len(items)
    assert len({item.id for item in items}) == len(items)
    for item in items:
        assert item.label is None or -1 <= item.label < len(source.class_names)
        if isinstance(item.image, np.ndarray):
            assert item.image.dtype == np.uint8
            assert item.image.ndim == 3
            assert item.image.shape[2] in (1, 3)
        else:
            assert isinstance(item.image, bytes | Unreadable)


def test_every_split_has_the_items_that_it_counts(options: SourceOptions) -> None:
    source = open_source(options)
    assert source.splits
    for names in (source.splits, source.class_names):
        assert len(set(names)) == len(names)
    for split in source.splits:
        assert_sound(source, split)


def test_items_come_in_the_same_order_again(options: SourceOptions) -> None:
    for source in (open_source(options), open_source(options)):
        for split in source.splits:
            first, again = list(source.items(split)), list(source.items(split))
            assert [item[1:] for item in first] == [item[1:] for item in again]
            assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))


def test_it_says_what_it_is_in_one_line_without_a_path_of_this_machine(options: SourceOptions) -> None:
    description = open_source(options).description
    assert description
    assert "\n" not in description
    assert all(str(file.parent) not in description for file in options.files)


def test_what_is_not_there_is_refused(options: SourceOptions) -> None:
    if options.local is None:
        pytest.skip("reads no file")
    with pytest.raises(DataError):
        open_source(options.model_copy(update={"path": options.local.with_name("nowhere")}))
