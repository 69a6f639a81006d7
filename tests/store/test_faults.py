from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import killed_writers
import pytest
from faults import Faults
from intact import verify_files
from processes import output_of
from store_standins import TinyNetwork, TinySamples, cache, content

from pipeline.errors import CacheError
from pipeline.progress import Silent
from pipeline.publishing.artifacts import unfinished
from pipeline.publishing.ledger import Ledger
from pipeline.store.format import chunks
from pipeline.store.making import writer
from pipeline.store.reader import TeacherCache

UNITS = 9


class At(Silent):
    """Calls something when so many views are done, as a person with a keyboard would."""

    def __init__(self, views: int, action: Callable[[], object]) -> None:
        self._left, self._action = views, action

    def advance(self, amount: int, note: str = "") -> None:
        self._left -= amount
        if self._left <= 0:
            self._left = 10**9
            self._action()


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted run writes."""
    return content(cache(tmp_path_factory.mktemp("whole") / "a"))


@pytest.mark.parametrize("views", [1, 20, 50, 69])
def test_ctrl_c_ends_cleanly_and_the_rest_is_computed_later(
    tmp_path: Path, whole: dict[str, bytes], views: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path / "a", progress=At(views, interrupt))
    assert [thread.name for thread in threading.enumerate() if "cache" in thread.name] == []
    (folder,) = unfinished(tmp_path / "a")
    done = len(Ledger(folder).units)
    assert done >= views // 8 - 1  # what was handed to the writer is written
    network = TinyNetwork()
    path = cache(tmp_path / "a", network=network, wait=False)  # the lock is free
    assert content(path) == whole
    assert len(network.batches) - 1 == 2 * (UNITS + 1 - max(done, 1))  # a unit is two micro-batches
    provenance = TeacherCache.open(path).manifest.provenance
    assert [run["units_before"] for run in provenance["runs"]] == [0, done]


def test_a_second_ctrl_c_still_waits_for_the_unit_in_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the first waits for the writer, which is kept at a unit until it has come."""
    writing, interrupted = threading.Event(), threading.Event()
    write_chunk = chunks.write_chunk

    class Waited(threading.Event):
        """Who waits for it is interrupted once, wherever in its wait it is by then."""

        def wait(self, timeout: float | None = None) -> bool:
            if not interrupted.is_set():
                waiting = threading.current_thread().ident
                threading.Thread(target=signal.pthread_kill, args=(waiting, signal.SIGINT)).start()
            return super().wait(timeout)

    def slow(path: Path, elements: Any, compression: Any) -> int:
        if str(path.relative_to(tmp_path)).count("/c/0/1/"):  # of the second unit
            writing.set()
            assert interrupted.wait(120)
        return write_chunk(path, elements, compression)

    def pressed(number: int, frame: Any) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    def first() -> None:
        assert writing.wait(120)
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.store.local.workspace.write_chunk", slow)
    monkeypatch.setattr(writer, "threading", SimpleNamespace(Event=Waited, Thread=threading.Thread))
    before = signal.signal(signal.SIGINT, pressed)
    try:
        with pytest.raises(KeyboardInterrupt):
            cache(tmp_path / "a", progress=At(24, first))
    finally:
        signal.signal(signal.SIGINT, before)
    assert interrupted.is_set()
    assert [thread.name for thread in threading.enumerate() if "cache" in thread.name] == []
    (folder,) = unfinished(tmp_path / "a")
    assert not list(folder.rglob(".*.new"))
    assert list(Ledger(folder).units) == ["static", "0/0", "0/1"]  # the queue, of the third, was dropped


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_is_needed_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes], number: int
) -> None:
    write_chunk, left = chunks.write_chunk, iter(range(20))

    def full(path: Path, elements: Any, compression: Any) -> int:
        if next(left, None) is None:
            path.write_bytes(b"half")
            raise OSError(number, "full")
        return write_chunk(path, elements, compression)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.store.local.workspace.write_chunk", full)
        with pytest.raises(CacheError) as caught:
            cache(tmp_path / "a")
    text = str(caught.value)
    assert "GB more" in text
    assert "GB free" in text
    assert "run the same command again" in text
    assert not (tmp_path / "a").exists()
    assert content(cache(tmp_path / "a")) == whole


def test_a_disk_that_was_full_before_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes | str) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.publishing.scratch.write_atomic", full)
        with pytest.raises(CacheError, match="GB more for the teacher cache"):
            cache(tmp_path / "deep" / "a")
    cache(tmp_path / "deep" / "a", wait=False)


def test_another_error_of_the_writer_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path, elements: Any, compression: Any) -> int:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr("pipeline.store.local.workspace.write_chunk", broken)
    with pytest.raises(PermissionError):
        cache(tmp_path / "a", samples=TinySamples(400))


def test_damage_to_unfinished_work_is_repaired(tmp_path: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache(tmp_path / "a", progress=At(60, interrupt))
    (folder,) = unfinished(tmp_path / "a")
    (folder / "logits/c/0/0/0").unlink()
    (folder / "embedding/c/0/1/0").write_bytes(b"short")
    chunk = bytearray((folder / "view_digest/c/0/2").read_bytes())
    chunk[-1] ^= 1
    (folder / "view_digest/c/0/2").write_bytes(chunk)
    messages: list[str] = []
    path = cache(tmp_path / "a", notify=messages.append)
    assert sorted(message.split()[1] for message in messages) == ["0/0", "0/1", "0/2"]
    verify_files(path)
    assert content(path) == whole


def test_files_are_durable_before_the_ledger_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of system calls: content, rename, directories, then the ledger."""
    synced: set[Path] = set()
    fsync, append = os.fsync, Ledger.append
    units: list[str] = []

    def recorded(descriptor: int) -> None:
        synced.add(Path(f"/proc/self/fd/{descriptor}").resolve())
        fsync(descriptor)

    def checked(ledger: Ledger, unit: str, files: dict[str, int]) -> None:
        folder = ledger.path.parent
        for name in files:
            path = folder / name
            assert path.is_file()
            assert path.with_name(f".{path.name}.new") in synced
            for directory in path.relative_to(folder).parents:
                assert folder / directory in synced
        synced.clear()
        synced.update(folder / name for name in known)
        append(ledger, unit, files)
        units.append(unit)

    known: list[str] = []
    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Ledger, "append", checked)
    # Directories once durable need not be synced again: one unit suffices to see all of them.
    cache(tmp_path / "a", samples=TinySamples(3), rows_per_block=3, views=_one_view())
    assert units == ["static", "0/0"]


def _one_view() -> Any:
    from store_standins import TinyViews

    return TinyViews(count=1)


def fork(folder: Path, mode: str, number: int) -> str:
    """What the processes of `killed_writers` print: those are forked once more, with all of Decant imported."""
    return output_of(killed_writers.run, folder, mode, number, log=folder / "log")


def kill(folder: Path, mode: str, number: int, faults: Faults) -> int:
    """How often a run was killed; after that, the lock was free, the rest was computed and every byte compared."""
    tried, survived = map(int, fork(folder, mode, number).split()[-2:])
    kind = {"times": "SIGKILL at a random moment", "calls": "SIGKILL at a call that changes the disk"}[mode]
    faults.count(kind, tried=tried, survived=survived)
    assert survived == tried
    return tried


def two_at_once(folder: Path, times: int, faults: Faults) -> None:
    """Two processes begin to make the same cache at the same moment; so many times, of 400 samples, 399, ..."""
    fork(folder, "two", times)
    for samples in range(400, 400 - times, -1):
        place = folder / str(samples)
        with faults("two writers at the same moment"):
            said = [(place / f"said-{number}").read_text() for number in range(2)]
            assert sorted("waiting" in text or "there already" in text for text in said) == [False, True]
            verify_files(place / "shared")
            alone = cache(folder / f"alone-{samples}", samples=TinySamples(samples))
            assert content(place / "shared") == content(alone)
            assert [path.name for path in place.iterdir() if "partial" in path.name] == []


def test_of_two_processes_the_second_waits_and_finds_it_done(tmp_path: Path, faults: Faults) -> None:
    two_at_once(tmp_path, 1, faults)


@pytest.mark.long
def test_of_two_processes_the_second_waits_and_finds_it_done_again_and_again(tmp_path: Path, faults: Faults) -> None:
    two_at_once(tmp_path, 30, faults)


def test_killed_at_some_moments_it_ends_with_the_same_bytes(tmp_path: Path, faults: Faults) -> None:
    assert kill(tmp_path, "times", 4, faults) >= 4


def test_killed_at_some_system_calls_it_ends_with_the_same_bytes(tmp_path: Path, faults: Faults) -> None:
    assert kill(tmp_path, "calls", 149, faults) >= 4


@pytest.mark.long
def test_killed_at_every_system_call_it_ends_with_the_same_bytes(tmp_path: Path, faults: Faults) -> None:
    assert kill(tmp_path, "calls", 1, faults) >= 700


@pytest.mark.long
def test_killed_at_many_moments_it_ends_with_the_same_bytes(tmp_path: Path, faults: Faults) -> None:
    assert kill(tmp_path, "times", 200, faults) >= 200


def test_memory_is_bounded_by_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow disk: units are computed only as fast as they are written, whatever their number."""
    alive: list[float] = []
    write_chunk = chunks.write_chunk
    computed, written = [0.0], [0.0]
    ahead = threading.Event()

    def slow(path: Path, elements: Any, compression: Any) -> int:
        if threading.current_thread().name == "cache-writer":  # and not for what does not depend on views
            assert ahead.wait(120)  # the teacher does run ahead
        time.sleep(0.002)
        if "logits" in str(path):
            written[0] += 1
            alive.append(computed[0] - written[0])
        return write_chunk(path, elements, compression)

    class Count(Silent):
        def advance(self, amount: int, note: str = "") -> None:
            computed[0] += amount / 8
            if computed[0] >= 2:
                ahead.set()

    monkeypatch.setattr("pipeline.store.local.workspace.write_chunk", slow)
    cache(tmp_path / "a", samples=TinySamples(160), progress=Count())
    assert 1 <= max(alive) <= 4
