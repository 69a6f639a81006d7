"""Functions run in new processes, one on each worker of a cluster; who loses a worker goes on elsewhere."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client, LocalCluster, get_worker
from experiment import moved_to

sys.path.insert(0, str(Path(__file__).parent))
import apart_students
from processes import begin_process, finished

from pipeline.commands import on_workers
from pipeline.commands.children import ChildFailure
from pipeline.commands.new_process import in_new_process
from pipeline.commands.on_workers import run_on_workers

FOLDERS = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Calls a function of `apart_students` in a new process."""
    monkeypatch.setenv("PYTHONPATH", FOLDERS)

    def call(
        function: Callable[..., object], unwanted: Callable[[], bool] = lambda: False, folder: Path = tmp_path
    ) -> Any:
        return in_new_process(pickle.dumps(function), str(folder), unwanted)

    return call


def test_what_a_function_returns_and_what_ends_it(apart: Callable[..., Any], tmp_path: Path) -> None:
    number, text = apart(apart_students.value)
    assert (number != os.getpid(), text) == (True, "a")
    wrong = apart(apart_students.wrong_input)
    assert (wrong.exit_code, "train.epochs: is too small" in wrong.message) == (2, True)
    assert apart(apart_students.killed).message == "the process was ended by SIGKILL; memory may have run out"


def test_who_is_wanted_no_more_is_ended(apart: Callable[..., Any], tmp_path: Path) -> None:
    started = tmp_path / "started"
    failed = apart(partial(apart_students.waits, started), lambda: started.exists() and started.read_text() != "")
    assert failed == ChildFailure("it was interrupted", 130)
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)


def test_a_worker_of_other_files_is_told_of(apart: Callable[..., Any], tmp_path: Path) -> None:
    failed = apart(apart_students.value, folder=tmp_path / "absent")
    assert "there is no such folder where the worker runs" in failed.message


class InThreads:
    """Stands for the task: a function runs where the worker does, and what runs at once is counted."""

    def __init__(self) -> None:
        self.lock, self.running, self.most = threading.Lock(), Counter[str](), Counter[str]()
        self.begun = list[tuple[str, int]]()

    def __call__(self, pickled: bytes, folder: str) -> object:
        """Run a function."""
        address = str(get_worker().address)
        with self.lock:
            self.running[address] += 1
            self.most[address] = max(self.most[address], self.running[address])
        try:
            return pickle.loads(pickled)(address)
        finally:
            with self.lock:
                self.running[address] -= 1


THREADS = InThreads()
HELD = threading.Event()


def in_thread(pickled: bytes, folder: str) -> object:
    """As a task of a worker of this process."""
    return THREADS(pickled, folder)


def square(number: int, address: str) -> object:
    """An easy one."""
    if number == 3:
        return ChildFailure("three", 2)
    return number**2


def held(number: int, address: str) -> object:
    """The first that runs does not end until the test is over; the same one on another worker does."""
    with THREADS.lock:
        THREADS.begun.append((address, number))
        first = sum(each == number for _, each in THREADS.begun) == 1
    if number == 0 and first:
        HELD.wait(60)
    return number


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """Two workers of this process, of three threads each."""
    monkeypatch.setattr(on_workers, "task", in_thread)
    monkeypatch.setattr(on_workers, "WORKERS_SECONDS", 0.05)
    options: dict[str, Any] = {"dashboard_address": None, "protocol": "tcp://", "host": "127.0.0.1"}
    HELD.clear()
    with LocalCluster(n_workers=2, threads_per_worker=3, processes=False, **options) as started:
        try:
            yield started
        finally:
            HELD.set()


def test_each_worker_has_one_at_a_time_and_all_are_told(cluster: LocalCluster) -> None:
    with Client(cluster, set_as_default=False) as client:
        found = list(run_on_workers(client, [f"n{i}" for i in range(9)], lambda number: partial(square, number)))
    values: list[object] = [i**2 for i in range(9)]
    values[3] = ChildFailure("three", 2)
    assert sorted(each.number for each in found) == list(range(9))
    assert [each.value for each in sorted(found)] == values
    assert set(THREADS.most.values()) == {1}
    assert len(THREADS.most) == 2


def test_who_loses_its_worker_goes_on_elsewhere(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    THREADS.begun.clear()
    with Client(cluster, set_as_default=False) as client:
        some = run_on_workers(client, ["a", "b"], lambda number: partial(held, number))
        assert next(some).number == 1
        lost = next(address for address, number in THREADS.begun if number == 0)
        client.retire_workers([lost], close_workers=True)
        assert [each.value for each in some] == [0]
    again = [address for address, number in THREADS.begun if number == 0]
    assert len(again) == 2
    assert again[1] != again[0] == lost
    assert f"a: its worker {lost} is lost; it goes on elsewhere" in capsys.readouterr().err


@pytest.mark.long
def test_a_killed_workers_student_goes_on_elsewhere_with_the_same_bytes(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two students on two workers of this machine, of which one is killed after a checkpoint."""
    alone, folder = tmp_path / "alone", tmp_path / "here"
    options = ["--config", "tiny.yaml", "--set", "train.epochs=12"]
    chosen = [*options, "--student", "small", "--objectives", "kd", "--objectives", "hard"]
    moved_to(road, alone, monkeypatch)
    process = begin_process(apart_students.command, str(alone), ["train-students", *chosen], log=tmp_path / "alone-log")
    assert finished(process) == 0, (tmp_path / "alone-log").read_text()
    moved_to(road, folder, monkeypatch)
    log = tmp_path / "log"
    process = begin_process(apart_students.command, str(folder), ["train-students", *chosen, "--workers", "2"], log=log)
    killed = None
    while killed is None:
        assert process.is_alive(), log.read_text()
        if list(folder.glob("artifacts/tiny/students/small/**/checkpoint*")):
            below = psutil.Process(process.pid).children(recursive=True)
            serving = [
                each for each in below if "pipeline.commands.new_process import serve" in " ".join(each.cmdline())
            ]
            killed = serving[0].parent() if serving else None
        time.sleep(0.02)
    killed.kill()
    assert finished(process) == 0, log.read_text()
    assert "is lost; it goes on elsewhere" in log.read_text()
    for objectives in ("kd", "hard"):
        file = f"artifacts/tiny/students/small/{objectives}/seed-0/student.safetensors"
        assert (folder / file).read_bytes() == (alone / file).read_bytes()
