from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import threading
import time
from multiprocessing.context import ForkProcess
from multiprocessing.synchronize import Event as EventType
from pathlib import Path

import pytest

from pipeline.errors import CacheError, CacheMismatch
from pipeline.files import sync_directory
from pipeline.publishing import Scratch
from pipeline.publishing.artifacts import FINGERPRINT, published, unfinished

PRINT, OTHER = "ab" * 32, "cd" * 32


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def quiet(text: str) -> None:
    pass


def _hold(target: Path, held: EventType) -> None:
    with Scratch(target, PRINT) as scratch:
        (scratch.folder / "work").write_text("half")
        held.set()
        time.sleep(60)


def hold(target: Path) -> ForkProcess:
    """A process that holds the scratch folder of `target`."""
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold, args=(target, held), daemon=True)
    process.start()
    assert held.wait(120)
    return process


def end(process: ForkProcess) -> None:
    process.kill()
    process.join()


def test_publish_renames_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "cache.zarr"
    assert published(target) != PRINT
    with Scratch(target, PRINT) as scratch:
        assert scratch.folder.parent == target.parent
        assert scratch.folder.name == f".cache.zarr.{PRINT[:16]}.partial"
        (scratch.folder / "work").write_text("done")
        scratch.publish()
    assert published(target) == PRINT
    assert published(target) != OTHER
    assert names(target.parent) == ["cache.zarr"]
    assert names(target) == [FINGERPRINT, "work"]


def test_unpublished_work_stays_and_an_empty_folder_does_not(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with Scratch(target, PRINT):
        pass
    assert names(tmp_path) == []
    with Scratch(target, PRINT) as scratch:
        (scratch.folder / "work").write_text("half")
    assert unfinished(target) == [scratch.folder]
    with Scratch(target, PRINT) as again:
        assert (again.folder / "work").read_text() == "half"


def test_the_holder_is_named_and_death_releases_the_lock(tmp_path: Path) -> None:
    target = tmp_path / "a"
    process = hold(target)
    try:
        with pytest.raises(CacheError, match=f"process {process.pid} on "), Scratch(target, PRINT, wait=False):
            pass
        assert (tmp_path / f".a.{PRINT[:16]}.partial" / "work").exists()  # nothing was deleted
    finally:
        end(process)
    with Scratch(target, PRINT, wait=False) as scratch:
        assert (scratch.folder / "work").read_text() == "half"
        assert json.loads((scratch.folder / "holder.json").read_text())["pid"] == os.getpid()


def test_the_second_waits_with_a_message_and_finds_it_done(tmp_path: Path) -> None:
    target = tmp_path / "a"
    messages: list[str] = []
    done: list[bool] = []

    def second() -> None:
        with Scratch(target, PRINT, notify=messages.append) as scratch:
            done.append(scratch.done)

    with Scratch(target, PRINT) as first:  # flock is per open file: a thread will do for a process
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 120
        while not messages and time.monotonic() < deadline:
            time.sleep(0.01)
        assert done == []
        (first.folder / "work").write_text("done")
        first.publish()
    thread.join(120)
    assert done == [True]
    assert "waiting" in messages[0]
    assert f"process {os.getpid()}" in messages[0]
    assert names(tmp_path) == ["a"]


def test_the_second_goes_on_where_a_killed_first_stopped(tmp_path: Path) -> None:
    target = tmp_path / "a"
    process = hold(target)
    threading.Timer(0.3, end, [process]).start()
    with Scratch(target, PRINT, notify=quiet) as scratch:
        assert not scratch.done
        assert (scratch.folder / "work").read_text() == "half"


def test_another_artifact_needs_replace(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with Scratch(target, OTHER) as scratch:
        (scratch.folder / "old").write_text("old")
        scratch.publish()
    with Scratch(target, PRINT, files=["old", "new"]) as scratch:
        (scratch.folder / "new").write_text("new")
        with pytest.raises(CacheMismatch, match="--replace"):
            scratch.publish()
        assert (target / "old").exists()
        scratch.publish(replace=True)
    assert published(target) == PRINT
    assert not (target / "old").exists()
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["notes.txt", "deep/er/photo.jpg", "link"])
def test_foreign_files_are_never_replaced(tmp_path: Path, name: str) -> None:
    target = tmp_path / "a"
    with Scratch(target, OTHER) as scratch:
        (scratch.folder / "old").write_text("old")
        scratch.publish()
    (target / ".DS_Store").touch()  # nobody's
    foreign = target / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    if name == "link":
        foreign.symlink_to(tmp_path / "elsewhere")
    else:
        foreign.write_text("mine")
    with Scratch(target, PRINT, files=["old", "new"]) as scratch:
        with pytest.raises(CacheMismatch, match=f"(?s)so nothing is replaced.*got: 1: {name}"):
            scratch.refuse_other(replace=True)
        with pytest.raises(CacheMismatch, match="so nothing is replaced"):
            scratch.publish(replace=True)
        assert os.path.lexists(foreign)
        foreign.unlink()
        scratch.publish(replace=True)
    assert published(target) == PRINT


def test_of_two_settings_one_alone_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found the target free: the second, which comes while the first is about to publish, must look again."""
    target, about = tmp_path / "cache.zarr", threading.Event()

    def second() -> None:
        with Scratch(target, OTHER, notify=quiet) as scratch:
            (scratch.folder / "work").write_text("second")
            about.set()
            with pytest.raises(CacheMismatch, match="--replace"):
                scratch.publish()

    thread = threading.Thread(target=second)

    def about_to_rename(folder: Path) -> None:
        if not thread.ident:
            thread.start()
            assert about.wait(120)
            thread.join(0.3)  # it waits, or it has published by now
        sync_directory(folder)

    monkeypatch.setattr("pipeline.publishing.scratch.sync_directory", about_to_rename)
    with Scratch(target, PRINT, notify=quiet) as scratch:
        (scratch.folder / "work").write_text("first")
        scratch.publish()
    thread.join(120)
    assert not thread.is_alive()
    assert published(target) == PRINT
    assert (target / "work").read_text() == "first"
    assert names(tmp_path) == sorted(["cache.zarr", f".cache.zarr.{OTHER[:16]}.partial"])


@pytest.mark.parametrize("replace", [False, True])
def test_what_decant_did_not_publish_is_never_replaced(tmp_path: Path, replace: bool) -> None:
    target = tmp_path / "home"
    target.mkdir()
    (target / "thesis.txt").write_text("years")
    with Scratch(target, PRINT) as scratch, pytest.raises(CacheMismatch, match="move it away"):
        scratch.publish(replace)
    assert (target / "thesis.txt").read_text() == "years"


def test_an_empty_folder_at_the_target_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with Scratch(tmp_path / "a", PRINT) as scratch:
        scratch.publish()
    assert published(tmp_path / "a") == PRINT


def test_unfinished_work_of_other_settings_is_mentioned(tmp_path: Path) -> None:
    with Scratch(tmp_path / "a", OTHER) as scratch:
        (scratch.folder / "work").write_text("half")
    with Scratch(tmp_path / "a.b", OTHER) as other:  # another target, whose name begins alike
        (other.folder / "work").write_text("half")
    messages: list[str] = []
    with Scratch(tmp_path / "a", PRINT, notify=messages.append):
        pass
    assert len(messages) == 1
    assert str(scratch.folder) in messages[0]


def test_a_child_that_has_the_descriptor_does_not_keep_the_lock(tmp_path: Path) -> None:
    with Scratch(tmp_path / "a", PRINT) as scratch:
        (scratch.folder / "work").write_text("half")
        assert scratch._lock is not None
        child = subprocess.Popen(["sleep", "30"], pass_fds=[scratch._lock])
    try:
        with Scratch(tmp_path / "a", PRINT, wait=False) as scratch:
            assert not scratch.done
    finally:
        child.kill()
        child.wait()
