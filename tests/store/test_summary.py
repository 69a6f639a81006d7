from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from store_standins import TinySamples, cache

from pipeline.errors import CacheCorrupt, CacheNotFound
from pipeline.inspection.summary import describe, summary_text
from pipeline.progress import Silent
from pipeline.publishing.artifacts import unfinished
from pipeline.store.reader import TeacherCache


class Stop(Silent):
    """Interrupts a run after some views."""

    def __init__(self, views: int) -> None:
        self._left = views

    def advance(self, amount: int, note: str = "") -> None:
        self._left -= amount
        if self._left <= 0:
            raise KeyboardInterrupt


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A cache of which some units were made."""
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path / "a.zarr", progress=Stop(40))
    return tmp_path / "a.zarr"


def test_an_unfinished_cache_says_how_far_it_is_and_how_to_go_on(begun: Path) -> None:
    (folder,) = unfinished(begun)
    for path in (begun, folder):
        (facts,) = describe(path)
        assert facts["state"] == "unfinished"
        assert facts["progress"]["of"] == 9
        lines = (folder / "ledger.jsonl").read_text().splitlines()
        assert 4 <= facts["progress"]["units"] == len(lines) - 1  # but for labels and head
        assert facts["progress"]["holder"]["pid"] == os.getpid()
        assert facts["progress"]["running"] is True
        assert facts["data"]["samples"] == 23
        assert facts["provenance"]["runs"][0]["views"] is None
    finished_facts = describe(cache(begun))[0]
    assert {key: facts[key] for key in ("teacher", "data", "views", "signals", "head", "row_blocks")} == {
        key: finished_facts[key] for key in ("teacher", "data", "views", "signals", "head", "row_blocks")
    }
    assert finished_facts["fingerprint"].startswith(facts["fingerprint"])


def test_a_process_that_died_is_told_from_one_that_runs(begun: Path) -> None:
    (folder,) = unfinished(begun)
    holder = json.loads((folder / "holder.json").read_text())
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for change, running in (({"pid": dead.pid}, False), ({"host": "elsewhere"}, None), ({}, True)):
        (folder / "holder.json").write_text(json.dumps({**holder, **change, "command": "pipeline cache-teacher -c x"}))
        (facts,) = describe(begun)
        assert facts["progress"]["running"] is running
        assert ("run the same command again: pipeline cache-teacher -c x" in summary_text(facts)) == (not running)


def test_a_folder_of_an_early_version_says_what_it_can(begun: Path) -> None:
    (folder,) = unfinished(begun)
    (folder / "identity.json").unlink()
    (facts,) = describe(begun)
    assert facts["progress"]["of"] is None
    assert "teacher" not in facts
    assert f"{facts['progress']['units']} units" in summary_text(facts)
    (folder / "identity.json").write_text("{")
    with pytest.raises(CacheCorrupt):
        describe(begun)


def test_unfinished_work_beside_a_finished_cache_is_shown_too(begun: Path) -> None:
    cache(begun, samples=TinySamples(seed=1))
    assert [facts["state"] for facts in describe(begun)] == ["finished", "unfinished"]


def test_nothing_of_an_unfinished_cache_is_left_in_a_finished_one(begun: Path) -> None:
    path = cache(begun)
    assert not (path / "identity.json").exists()
    assert [facts["state"] for facts in describe(path)] == ["finished"]


def test_what_is_no_cache(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing", tmp_path, tmp_path / f".a.{'0' * 16}.partial"):
        if path.name.endswith("partial"):
            path.mkdir()
        with pytest.raises(CacheNotFound):
            describe(path)


def test_the_text_is_one_screen(tmp_path: Path) -> None:
    path = cache(tmp_path / "a.zarr")
    (facts,) = describe(path)
    text = summary_text(facts)
    assert len(text.splitlines()) <= 24
    manifest: Any = TeacherCache.open(path).manifest
    assert manifest.fingerprint in text
    assert "features/block2  6 x 2 x 2  float16" in text
    assert "9 units of one view of 8 samples" in text
