"""Stage one on a disk that fails: at any call that changes it, what failed is said, and the rest is done later."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import Faults
from intact import verify_files
from power_cut import Recorder
from store_standins import TinyNetwork, TinySamples, TinyViews, cache, content
from watched_disk import KINDS, Failing, Observer, watch
from without_privileges import without_privileges

from pipeline.errors import CacheError
from pipeline.inspection.summary import describe
from pipeline.progress import Lines, duration
from pipeline.publishing.artifacts import unfinished
from pipeline.store.format.manifest import Manifest
from pipeline.store.reader import TeacherCache

CODES = {
    errno.ENOSPC: "the disk is full (ENOSPC)",
    errno.EDQUOT: "the quota is used up (EDQUOT)",
    errno.EIO: "the disk fails (EIO)",
}
SAID = {
    errno.ENOSPC: ("the disk is full", "GB more for the teacher cache", "make room"),
    errno.EDQUOT: ("the disk quota is used up", "GB more for the teacher cache", "make room"),
    errno.EIO: ("the disk failed", "Input/output error", "run the same command again"),
}


def small(target: Path, **changes: Any) -> Path:
    """Two views of five samples in row blocks of three: five units."""
    arguments = {"samples": TinySamples(5), "views": TinyViews(count=2), "rows_per_block": 3, "micro_batch": 3}
    return cache(target, **(arguments | changes))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    return content(small(tmp_path_factory.mktemp("whole") / "a"))


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How many calls of each kind a run makes."""
    folder = tmp_path_factory.mktemp("calls")
    recorder = Recorder(folder)
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, folder, recorder)
        small(folder / "a")
    kinds = [call.kind for call, _ in recorder.steps]
    return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}


def fail_and_go_on(folder: Path, whole: dict[str, bytes], fault: Failing, faults: Faults, **changes: Any) -> bool:
    """One run in which a call fails, and one that goes on. False if there is no such call."""
    folder.mkdir()
    threads = threading.active_count()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    error: CacheError | None = None
    with pytest.MonkeyPatch.context() as patch:
        watch(patch, folder, fault)
        try:
            small(folder / "a", **changes)
        except CacheError as caught:
            error = caught
    if fault.hit is None:
        return False
    with faults(f"{CODES[fault.code]}, {'from a call on' if fault.lasting else 'at a call'}"):
        assert threading.active_count() <= threads
        assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
        explained(folder, whole, fault, error)
        path = small(folder / "a", wait=False, **changes)
        assert content(path) == whole
        verify_files(path)
        assert [each.name for each in folder.iterdir()] == ["a"]
    return True


def explained(folder: Path, whole: dict[str, bytes], fault: Failing, error: CacheError | None) -> None:
    """The error says what failed, where, and what to do; what is published is whole."""
    assert fault.hit is not None
    if error is None:  # a failure to tidy up may be passed over: the cache must be whole then
        there = fault.hit.kind == "mkdir" and not fault.hit.new
        assert there or fault.hit.kind in ("unlink", "rmdir", "fsync", "open"), fault.hit
        assert (folder / "a").is_dir()
    else:
        text = str(error)
        assert all(each in text for each in SAID[fault.code]), text
        assert (str(folder) if fault.lasting else fault.hit.path) in text
        assert not (folder / "a").exists() or content(folder / "a") == whole


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_a_call_that_fails_is_explained_and_the_run_goes_on_later(
    tmp_path: Path, whole: dict[str, bytes], calls: dict[str, int], kind: str, where: str, faults: Faults
) -> None:
    number = {"first": 1, "middle": calls[kind] // 2 + 1, "last": calls[kind]}[where]
    code = {"first": errno.EDQUOT, "middle": errno.ENOSPC, "last": errno.EIO}[where]
    assert fail_and_go_on(tmp_path / "once", whole, Failing((kind,), number, code, lasting=False), faults)
    if where == "middle":
        code = errno.ENOSPC if kind in ("open", "write", "mkdir", "fsync") else errno.EIO
        assert fail_and_go_on(tmp_path / "lasting", whole, Failing((kind,), number, code, lasting=True), faults)


@pytest.mark.long
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_every_call_that_fails(tmp_path: Path, code: int, lasting: bool, faults: Faults) -> None:
    """Of a still smaller job: two row blocks of one view."""
    tiny = {"samples": TinySamples(2), "views": TinyViews(count=1), "rows_per_block": 1, "micro_batch": 1}
    whole = content(small(tmp_path / "whole", **tiny))
    for kind in KINDS:
        number, folder = 1, tmp_path / kind
        while fail_and_go_on(folder, whole, Failing((kind,), number, code, lasting), faults, **tiny):
            shutil.rmtree(folder)
            number += 1
        shutil.rmtree(folder)
    assert sum(tried for tried, _ in faults.counts.values()) > 150


def test_a_relative_path_is_explained_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in (1, 10, 100):
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, tmp_path, Failing(KINDS, number, errno.EIO, lasting=True))
            with pytest.raises(CacheError, match="the disk failed"):
                small(Path("deep/a"))


def test_data_that_cannot_be_read_are_not_called_the_cache(tmp_path: Path) -> None:
    class Forbidden(TinySamples):
        def read(self, samples: Any) -> Any:
            raise PermissionError(errno.EACCES, "Permission denied", "/data/images.h5")

    with pytest.raises(PermissionError):
        small(tmp_path / "a", samples=Forbidden(5))


def test_a_disk_that_fails_again_and_again_is_got_over_in_the_end(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """Every run fails a little later than the one before; in the end there is nothing left to compute."""
    batches = []
    for number in range(3, 400, 11):
        network = TinyNetwork()
        fault = Failing(KINDS, number, errno.EIO, lasting=True)
        with pytest.MonkeyPatch.context() as patch:
            watch(patch, tmp_path, fault)
            try:
                small(tmp_path / "a", network=network)
                break
            except CacheError:
                batches.append(len(network.batches) - 1)
    assert content(tmp_path / "a") == whole
    assert len(batches) > 5
    assert len(network.batches) - 1 < 4  # of four, in the run that came through


class Forbidding(Observer):
    """A disk that may not be written to."""

    def before(self, call: Any) -> None:
        raise AssertionError(f"a reader wants to change the disk: {call}")


def test_readers_never_change_a_store_nor_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store on a read-only disk: not even an attempt, which root would be allowed to make."""
    path = small(tmp_path / "a")
    before = {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in tmp_path.rglob("*")}
    with monkeypatch.context() as patch:
        watch(patch, tmp_path, Forbidding())
        teacher = TeacherCache.open(path)
        for view in teacher.views:
            teacher.read(view, np.arange(teacher.count))
            teacher.view_digests(view, np.arange(teacher.count))
            teacher.view_parameters(view, np.arange(teacher.count))
        assert teacher.head is not None
        assert len(teacher.labels) == teacher.count
        verify_files(path)
        describe(path)
        assert small(path) == path  # it is there already
    assert {file: (file.stat().st_mtime_ns, file.stat().st_size) for file in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_disk_that_may_not_be_written_to_is_named(
    tmp_path: Path, whole: dict[str, bytes], code: int, faults: Faults
) -> None:
    for number in (1, 2, 50, 150):
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch, faults("the disk becomes read-only (EROFS, EACCES, EPERM)"):
            watch(patch, tmp_path, Failing(KINDS, number, code, lasting=True))
            with pytest.raises(CacheError, match=r"may not be written to(.|\n)*store\.path") as caught:
                small(folder / "a")
            assert os.strerror(code) in str(caught.value)
            assert str(folder) in str(caught.value)
            patch.undo()
            assert content(small(folder / "a", wait=False)) == whole


def test_a_store_whose_permissions_forbid_writing_is_read(tmp_path: Path, faults: Faults) -> None:
    """As `chmod -R a-w` leaves it: it is opened, read, described and verified; and no cache is made beside it."""
    path = small(tmp_path / "a")
    everything = [tmp_path, *tmp_path.rglob("*")]
    for each in everything:
        each.chmod(each.stat().st_mode & ~0o222)
    try:
        with without_privileges(), faults("a store that may only be read"):
            teacher = TeacherCache.open(path)
            assert teacher.read(1, np.arange(teacher.count)).logits.isfinite().all()
            verify_files(path)
            describe(path)
            assert small(path) == path  # it is there already
            with pytest.raises(CacheError, match="may not be written to"):
                small(tmp_path / "b")
    finally:
        for each in everything:
            each.chmod(each.stat().st_mode | 0o200)


class Clock:
    """A clock that jumps back and forth, by more and more."""

    def __init__(self, real: Callable[[], float], seed: int) -> None:
        self._real, self._random = real, np.random.default_rng(seed)

    def __call__(self) -> float:
        return self._real() + float(self._random.normal(0, 1e6))


class Calendar:
    """The `datetime` of a machine whose clock jumps by days."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def now(self, zone: tzinfo) -> datetime:
        return datetime.now(zone) + timedelta(days=float(self._random.normal(0, 1000)))


@pytest.mark.parametrize("seed", range(5))
def test_a_clock_that_jumps_changes_no_byte_and_no_rate(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, seed: int, capsys: Any, faults: Faults
) -> None:
    with monkeypatch.context() as patch, faults("clocks that jump back and forth"):
        for number, name in enumerate(("time", "monotonic", "perf_counter")):
            patch.setattr(time, name, Clock(getattr(time, name), seed * 10 + number))
        for module in ("store.format.provenance", "publishing.scratch"):
            patch.setattr(f"pipeline.{module}.datetime", Calendar(seed))
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "a", progress=Interrupting(7))
        path = small(tmp_path / "a", progress=Lines(every=0.0))
        verify_files(path)
        assert content(path) == whole
        describe(path)
        provenance = Manifest.read(path).provenance
        assert len(provenance["runs"]) == 2
        assert all(run["seconds"] >= 0 for run in provenance["runs"])
        assert provenance["seconds"] >= 0
        assert provenance["views_per_second"] is None or provenance["views_per_second"] >= 0
        assert re.search(r"\s-\d", capsys.readouterr().err) is None


class Interrupting(Lines):
    """Ctrl-C after so many views."""

    def __init__(self, views: int) -> None:
        super().__init__(every=0.0)
        self._left = views

    def advance(self, amount: int, note: str = "") -> None:
        super().advance(amount, note)
        self._left -= amount
        if self._left <= 0:
            self.interrupt()

    def interrupt(self) -> None:
        raise KeyboardInterrupt


def test_a_duration_is_never_negative() -> None:
    assert duration(-5.0) == "0 s"


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_file_that_was_cut_off_is_noticed(tmp_path: Path, compression: Any, faults: Faults) -> None:
    path = small(tmp_path / "a", compression=compression)
    cut_off_everywhere(path, lambda size: {0, 3, size // 2, size - 4, size - 1}, faults)


@pytest.mark.long
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_file_that_was_cut_off_anywhere_is_noticed(tmp_path: Path, compression: Any, faults: Faults) -> None:
    chance = random.Random(0)
    path = small(tmp_path / "a", compression=compression)
    cut_off_everywhere(path, lambda size: set(chance.sample(range(size), min(size, 60))), faults)


def cut_off_everywhere(path: Path, lengths: Callable[[int], set[int]], faults: Faults) -> None:
    """Cut files off, one after the other; each is noticed by verify, and none is read as something else."""
    everything = np.arange(TeacherCache.open(path).count)
    right = {view: TeacherCache.open(path).read_encoded(view, everything).arrays for view in range(2)}
    kinds = {file.relative_to(path).parts[0]: file for file in sorted(path.rglob("*")) if file.is_file()}
    for file in kinds.values():
        data = file.read_bytes()
        for length in sorted(lengths(len(data)) & set(range(len(data)))):
            file.write_bytes(data[:length])
            with faults("a file of a finished cache cut off"):
                with pytest.raises(CacheError):
                    verify_files(path)
                with suppress(CacheError):
                    teacher = TeacherCache.open(path)
                    for view, arrays in right.items():
                        for name, array in teacher.read_encoded(view, everything).arrays.items():
                            assert array.numpy().tobytes() == arrays[name].numpy().tobytes()
            file.write_bytes(data)
    verify_files(path)


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_unfinished_work_that_was_cut_off_is_done_again(tmp_path: Path, compression: Any, faults: Faults) -> None:
    whole = content(small(tmp_path / "whole", compression=compression))
    generator = np.random.default_rng(0)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            small(tmp_path / "a", progress=Interrupting(6), compression=compression)
        (folder,) = unfinished(tmp_path / "a")
        for file in sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "runs.json"):
            if generator.random() < 0.5:
                os.truncate(file, int(generator.integers(0, file.stat().st_size + 1)))
        with faults("files of unfinished work cut off"):
            path = small(tmp_path / "a", compression=compression)
            assert {k: v for k, v in content(path).items() if k != "ledger.jsonl"} == {
                k: v for k, v in whole.items() if k != "ledger.jsonl"
            }
            verify_files(path)
        shutil.rmtree(path)


@pytest.mark.parametrize("views", [1, 4, 7, 10])
def test_a_lock_whose_holder_was_killed_is_free(
    tmp_path: Path, whole: dict[str, bytes], views: int, faults: Faults
) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:

        class Waiting(Interrupting):
            def interrupt(self) -> None:
                os.write(writer, b"x")
                time.sleep(1000)

        small(tmp_path / "a", progress=Waiting(views))
        os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"x"
    os.close(reader)
    with pytest.raises(CacheError, match=f"process {child} on"):
        small(tmp_path / "a", wait=False)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with faults("a lock whose holder was killed"):
        assert content(small(tmp_path / "a", wait=False)) == whole
