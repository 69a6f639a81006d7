"""What every data source must do; finds each file of pipeline/data/sources by itself.

A source whose options have no default needs a line in `MADE`: what there is to read, and the options that name it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from contracts.keeping import require_kept
from PIL import Image

from pipeline import plugins
from pipeline.config import Section, bind
from pipeline.contracts.sources import SourceContract
from pipeline.data.config import DataConfig
from pipeline.data.source import SOURCE_PACKAGE, SourceOptions
from pipeline.errors import ConfigError

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


def test_contract(options: SourceOptions) -> None:
    """What `pipeline contract` tries."""
    require_kept(SourceContract(options), ["what_is_not_there_is_refused"] if options.local is None else [])
