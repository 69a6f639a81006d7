from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from experiment import COUNT, HOLDOUT, TEST, source
from PIL import Image

from pipeline.commands import inspect
from pipeline.commands.inspect import Sheet
from pipeline.errors import CacheNotFound, CacheUnfinished, DataError
from pipeline.store.reader import TeacherCache

MAIN = Path("artifacts/caches/tiny.zarr")


def run(path: Path | None = None, *overrides: str, sheet: Sheet | None = None, as_json: bool = False) -> None:
    inspect.run(source(*overrides), path, sheet=sheet, as_json=as_json)


def test_a_path_needs_no_configuration(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("tiny.yaml").unlink()
    run(MAIN, as_json=True)
    (facts,) = json.loads(capsys.readouterr().out)
    manifest = TeacherCache.open(MAIN).manifest
    assert facts["state"] == "finished"
    assert facts["fingerprint"] == manifest.fingerprint
    assert {name: facts[name] for name in ("teacher", "data", "views")} == {
        name: manifest.stored[name] for name in ("teacher", "data", "views")
    }
    assert {one["name"]: one["bytes_per_view"] for one in facts["signals"]} == manifest.layout.bytes_per_view
    sizes = [file.stat().st_size for file in MAIN.rglob("*") if file.is_file()]
    assert (facts["files"], facts["bytes"]) == (len(sizes), sum(sizes))


def test_all_caches_of_an_experiment_on_a_screen_each(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run()
    screens = capsys.readouterr().out.split("\n\n")
    assert len(screens) == 3
    for screen, count in zip(screens, (COUNT, HOLDOUT, TEST), strict=True):
        assert len(screen.splitlines()) <= 24
        assert max(map(len, screen.splitlines())) <= 150
        assert f"data         {count} samples" in screen
    assert "pad-crop padding 1, fill 0" in screens[0]
    assert "features/block2  32 x 2 x 2  float32    512 bytes a view" in screens[0]
    assert "6 units of one view of 20 samples" in screens[0]
    assert "the images as they are" in screens[1]
    shutil.rmtree("artifacts/caches/tiny.holdout.zarr")
    run()
    captured = capsys.readouterr()
    assert captured.out.count("a teacher cache") == 2
    assert "note: there is no cache of the holdout samples" in captured.err
    shutil.rmtree("artifacts/caches")
    with pytest.raises(CacheNotFound, match="pipeline cache-teacher"):
        run()


def picture(path: Path) -> Any:
    return np.asarray(Image.open(io.BytesIO(path.read_bytes())))


@pytest.mark.parametrize("kind", ["", ".holdout", ".evaluation"])
def test_a_picture_of_every_cache_of_the_experiment(here: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is of other samples, which are found by their ids."""
    path = Path(f"artifacts/caches/tiny{kind}.zarr")
    run(path, sheet=Sheet(views=2, samples=3))
    assert f"tiny{kind}.png" in capsys.readouterr().out
    pixels = picture(Path(f"tiny{kind}.png"))
    assert pixels.shape[2] == 3
    assert not (pixels == (207, 34, 46)).all(axis=2).any()  # nothing is marked


def test_a_picture_marks_views_that_are_not_what_the_teacher_saw(here: Path) -> None:
    with h5py.File("data.h5", "r+") as file:
        file["train/images"][0] = 255 - file["train/images"][0]
    run(sheet=Sheet(views=2, samples=2, output=Path("deep/sheet.png")))
    assert (picture(Path("deep/sheet.png")) == (207, 34, 46)).all(axis=2).any()


def test_a_picture_that_cannot_be_drawn(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = Sheet(views=2, samples=3)
    with pytest.raises(DataError, match="these are not the samples of this cache"):
        run(MAIN, "data.limit=50", "data.holdout=null", sheet=sheet)
    shutil.copy("data.h5", "other.h5")
    with h5py.File("other.h5", "r+") as file:  # the same names of samples, other classes
        file.attrs["class_names"] = json.dumps(["a", "b"])
        file["train/labels"][:] = file["train/labels"][:] % 2
        file["test/labels"][:] = file["test/labels"][:] % 2
    with pytest.raises(DataError, match="these are not the samples of this cache"):
        run(Path("artifacts/caches/tiny.evaluation.zarr"), "data.path=other.h5", sheet=sheet)
    Path("data.h5").unlink()
    with pytest.raises(DataError, match="a picture needs the packed data set") as error:
        run(MAIN, sheet=sheet)
    assert "--config" in str(error.value)
    MAIN.rename(MAIN.with_name(f".tiny.zarr.{'0' * 16}.partial"))
    with pytest.raises(CacheUnfinished):
        run(MAIN, sheet=sheet)
    assert not list(here.glob("*.png"))
