"""What is refused from Python says what to do in Python: no flag of a command without its argument."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from api_pieces import augment, cached, network, opened, photos

from pipeline import CachedViews, cache_teacher, make_views, objective
from pipeline.errors import CacheMismatch, CacheUnfinished, PipelineError

QUIET: dict[str, Any] = {"device": "cpu", "progress": False, "micro_batch": 8, "precision": "float32"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache. Not to be changed."""
    folder = tmp_path_factory.mktemp("advice")
    cached(folder)
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """The same, to work in."""
    return shutil.copytree(kept, tmp_path / "work")


def unlabeled() -> list[Any]:
    return [image for image, _ in photos()]


def begun(folder: Path) -> None:
    """A cache that was begun and not finished."""
    cache = folder / "cache.zarr"
    name = (cache / ".fingerprint").read_text()[:16]
    (cache / ".fingerprint").unlink()
    cache.rename(folder / f".cache.zarr.{name}.partial")


def damaged(folder: Path) -> None:
    """A chunk file of other bytes."""
    chunk = folder / "cache.zarr/logits/c/0/0/0"
    chunk.write_bytes(bytes(chunk.stat().st_size))


def torn(folder: Path) -> None:
    """A manifest that nobody can read."""
    (folder / "cache.zarr/zarr.json").write_text("{")


def other_views_drawn(folder: Path) -> None:
    """Views whose digests are others than those of the pixels."""
    shifted = [(np.roll(image, 1, 0), label) for image, label in photos()]
    CachedViews(folder / "cache.zarr", shifted, verify="sample", progress=False)


def make(folder: Path, *arguments: Any, name: str = "cache.zarr", **options: Any) -> None:
    cache_teacher(*arguments, folder / name, **QUIET, **options)


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another teacher": (lambda f: make(f, network(8), photos(), augment()), "replace=True"),
    "another mean": (lambda f: make(f, network(16, mean=0.4), photos(), augment()), "give it to the network"),
    "other views": (lambda f: make(f, network(16), photos(), augment(2)), "replace=True"),
    "other photos": (lambda f: make(f, network(16), photos(seed=1), augment()), "replace=True"),
    "a run that is no cache": (lambda f: (torn(f), make(f, network(8), photos(), augment())), "replace=True"),
    "no cache": (lambda f: opened(f / "other.zarr"), "cache_teacher"),
    "a folder that is none": (lambda f: opened(f), "cache_teacher"),
    "begun": (lambda f: (begun(f), opened(f / "cache.zarr")), "cache_teacher"),
    "torn": (lambda f: (torn(f), opened(f / "cache.zarr")), "cache_teacher"),
    "damaged": (lambda f: (damaged(f), list(opened(f / "cache.zarr").loader(8))), "replace=True"),
    "read with other photos": (lambda f: opened(f / "cache.zarr", photos(seed=1)), "cache_teacher"),
    "read with other pixels": (other_views_drawn, "cache_teacher"),
    "read with other views": (
        lambda f: opened(f / "cache.zarr", views=make_views(["horizontal-flip"])),
        "cache_teacher",
    ),
    "read with another teacher": (lambda f: opened(f / "cache.zarr", teacher=network(8)), "cache_teacher"),
    "too many views": (lambda f: opened(f / "cache.zarr").loader(8, views=4), "views: "),
    "a batch without room": (lambda f: opened(f / "cache.zarr").loader(1, views=2), "views"),
    "an empty batch": (lambda f: opened(f / "cache.zarr").loader(0), "batch_size: "),
    "balanced without labels": (lambda f: opened(f / "cache.zarr", unlabeled()).loader(8, balanced=True), "balanced: "),
    "a signal that is not there": (lambda f: opened(f / "cache.zarr").loader(8, signals=["extras/a"]), "cache_teacher"),
    "an objective that needs two views": (
        lambda f: objective(["mlld"], network(), opened(f / "cache.zarr")),
        "views=2",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_advice_is_for_python_too(folder: Path, case: str) -> None:
    do, advice = WRONG[case]
    with pytest.raises(PipelineError) as caught:
        do(folder)
    text = str(caught.value)
    assert advice in text
    flags = set(re.findall(r"--[a-z]+", text))
    assert not flags or "in Python" in text, text
    assert "train." not in text.replace("`train.views_per_step: 2` (in Python, views=2)", "")


def test_the_advice_is_right(folder: Path) -> None:
    """What messages tell to do does what they say."""
    with pytest.raises(CacheMismatch):
        make(folder, network(8), photos(), augment())
    make(folder, network(8), photos(), augment(), replace=True)
    begun(folder)
    with pytest.raises(CacheUnfinished):
        opened(folder / "cache.zarr")
    make(folder, network(8), photos(), augment())
    assert len(opened(folder / "cache.zarr", teacher=network(8))) == 72
