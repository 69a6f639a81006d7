"""Digests of the images of a large packed file are kept beside it, as long as the file is the same."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_files import noise, write_packed

from pipeline.data import PackedDataset, Samples, kept_digests
from pipeline.data.kept_digests import forget_digests

KEPT = "x.h5.digests/digests.json"


@pytest.fixture(autouse=True)
def _all_files_are_large_and_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_digests, "LEAST_BYTES", 0)
    monkeypatch.setattr(kept_digests, "SETTLED_SECONDS", -3600.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_packed(
        tmp_path / "x.h5", images=noise(40, 4, 5, 3), labels=np.arange(40) % 2, ids=[*map(str, range(40))]
    )


def samples(file: Path, *positions: int) -> Samples:
    split = PackedDataset.open(file).split("train")
    return Samples(split, np.array(positions) if positions else None)


def digest(images: object) -> str:
    pixels = np.asarray(images)
    return "sha256:" + hashlib.sha256(f"pixels uint8 {len(pixels)} 4 5 3\n".encode() + pixels.tobytes()).hexdigest()


def never(*_: object) -> None:
    raise AssertionError("read")


def test_what_is_kept_is_not_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [digest(noise(40, 4, 5, 3)), digest(noise(40, 4, 5, 3)[[1, 7]])]
    assert [samples(file).pixel_digest(), samples(file, 1, 7).pixel_digest()] == expected
    assert list(json.loads((file.parent / KEPT).read_text())["digests"].values()) == expected
    monkeypatch.setattr(Samples, "_digest", never)
    assert [samples(file).pixel_digest(), samples(file, 1, 7).pixel_digest()] == expected
    with pytest.raises(AssertionError):
        samples(file, 1, 8).pixel_digest()
    forget_digests(file)
    assert not (file.parent / KEPT).exists()
    with pytest.raises(AssertionError):
        samples(file).pixel_digest()
    forget_digests(file)  # there are none


def flip(file: Path) -> None:
    """Change a pixel in place; the time of modification is what it was."""
    before = file.stat()
    with h5py.File(file, "r+") as opened:
        opened["train/images"][3, 1, 1, 1] ^= 1
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    """Put another file of the same size and time in its place."""
    before, new = file.stat(), file.with_name("new.h5")
    new.write_bytes(file.read_bytes())
    flip(new)
    os.utime(new, ns=(before.st_atime_ns, before.st_mtime_ns))
    new.replace(file)


@pytest.mark.parametrize("change", [flip, replace])
def test_other_bytes_are_seen_though_size_and_time_are_the_same(file: Path, change: Callable[[Path], None]) -> None:
    before, kept = file.stat(), samples(file).pixel_digest()
    change(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    images = noise(40, 4, 5, 3)
    images[3, 1, 1, 1] ^= 1
    assert samples(file).pixel_digest() == digest(images) != kept
    assert list(json.loads((file.parent / KEPT).read_text())["digests"].values()) == [digest(images)]


def test_what_changes_while_it_is_read_is_not_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute = Samples._digest

    def changed(self: Samples, head: str) -> str:
        found = compute(self, head)
        os.utime(file)
        return found

    monkeypatch.setattr(Samples, "_digest", changed)
    assert samples(file).pixel_digest() == digest(noise(40, 4, 5, 3))
    assert not (file.parent / KEPT).exists()


def test_of_small_files_and_of_those_that_changed_a_moment_ago_nothing_is_kept(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("SETTLED_SECONDS", 3600.0), ("LEAST_BYTES", 1 << 40)):
        with monkeypatch.context() as patch:
            patch.setattr(kept_digests, name, value)
            assert samples(file).pixel_digest() == digest(noise(40, 4, 5, 3))
            assert not (file.parent / KEPT).exists()


def test_where_files_have_no_time_of_change_nothing_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples(file)
    with monkeypatch.context() as patch:
        patch.setattr(kept_digests.os, "name", "nt")
        assert kept_digests._proof(file) is None
    assert data.pixel_digest() == digest(noise(40, 4, 5, 3))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"digests": 3}', '{"digests": {}, "file": {}}', "\udcff"])
def test_what_cannot_be_read_is_computed(file: Path, text: str) -> None:
    samples(file).pixel_digest()
    whole = (file.parent / KEPT).read_text()
    (file.parent / KEPT).write_bytes(text.encode(errors="surrogateescape"))
    assert samples(file).pixel_digest() == digest(noise(40, 4, 5, 3))
    assert (file.parent / KEPT).read_text() == whole


def test_where_nothing_can_be_kept_it_is_computed(file: Path) -> None:
    (file.parent / "x.h5.digests").write_text("a file of somebody's")
    assert samples(file).pixel_digest() == digest(noise(40, 4, 5, 3))
    assert (file.parent / "x.h5.digests").read_text() == "a file of somebody's"


def test_git_does_not_see_them(file: Path) -> None:
    samples(file).pixel_digest()
    subprocess.run(["git", "init", "-q", file.parent], check=True)
    shown = subprocess.run(
        ["git", "-C", file.parent, "status", "--short", "-uall"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.split() == ["??", "x.h5"]
