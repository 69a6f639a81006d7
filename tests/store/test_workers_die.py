"""Workers that are processes: killed, stopped, and without their scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest
from distributed import Client, LocalCluster, Worker
from faults import Faults
from intact import verify_files
from processes import fork_workers, start_server
from store_standins import SlowNetwork, TinySamples, cache, content, teachers
from test_faults import At

from pipeline.errors import CacheError
from pipeline.progress import Silent
from pipeline.signals import Signals
from pipeline.store.cluster.clusters import connect, local_cluster
from pipeline.store.cluster.distribution import runners_on
from pipeline.store.making.teacher_pass import TeacherPass

SAMPLES = 100
"""39 units."""

PATHS = os.pathsep.join(str(folder) for folder in list(Path(__file__).parents)[:3])
"""What processes that are no children of this one import from: tests/store, tests and Decant itself."""


def slowly(network: type[SlowNetwork] = SlowNetwork) -> dict[str, TeacherPass]:
    """What a worker opens. It writes slowly, too."""
    from pipeline.store.local import workspace as module

    write_chunk = module.write_chunk

    def slow(*arguments: Any) -> int:
        time.sleep(0.01)
        return write_chunk(*arguments)

    module.write_chunk = slow
    return teachers(network=network(), samples=TinySamples(SAMPLES))


def distributed(client: Client, target: Path, views: int, action: Callable[[], object], **changes: Any) -> Path:
    """The cache of slow workers; something happens when so many views are done."""
    opened = changes.pop("opened", slowly)
    said: Callable[[str], object] = changes.get("notify", lambda text: None)
    options = {"samples": TinySamples(SAMPLES), "progress": At(views, action)} | changes
    with runners_on(client, opened, said) as runners:
        return cache(target, runner=runners("tiny"), **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    return content(cache(tmp_path_factory.mktemp("whole") / "a", samples=TinySamples(SAMPLES)))


def children() -> set[psutil.Process]:
    """Processes that this one began, with that which watches over the resources of all."""
    resource_tracker.ensure_running()
    return set(psutil.Process().children(recursive=True))


def stay(before: set[psutil.Process]) -> list[psutil.Process]:
    """Those that were not there before and do not end by themselves."""
    _, alive = psutil.wait_procs(children() - before, timeout=120)
    return alive


@pytest.fixture(autouse=True)
def _children_end() -> Iterator[None]:
    """What a test that fails leaves running is ended with it. The server that forks workers is of all tests."""
    start_server()
    before = children()
    yield
    end_children(before)


def end_children(before: set[psutil.Process]) -> None:
    """End those that were not there before, with all that they began."""
    found = children() - before
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found)


def test_a_child_that_is_left_is_ended() -> None:
    before = children()
    with subprocess.Popen(["sleep", "600"]):
        assert children() != before
        end_children(before)
        assert children() == before


def is_profiled(dask_worker: Worker) -> bool:
    """Whether a worker asks Python for the frames of all threads again and again, which may never return."""
    return "profile" in dask_worker.periodic_callbacks


def test_a_worker_that_is_killed_is_replaced(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, faults: Faults
) -> None:
    fork_workers(monkeypatch)
    monkeypatch.setattr("pipeline.store.cluster.watch.LOOK_SECONDS", 0.1)
    monkeypatch.setattr("pipeline.store.cluster.distribution.IN_FLIGHT", 6)  # so that there is something left to lose
    before, said = children(), []
    profiled = dask.config.set({"distributed.worker.profile.enabled": True})  # by those who want it elsewhere
    with faults("a worker of a cluster is killed"), profiled, local_cluster(2, "cpu", said.append) as client:
        assert not any(client.run(is_profiled).values())

        def kill() -> None:
            os.kill(client.cluster.workers[0].pid, signal.SIGKILL)

        path = distributed(client, tmp_path / "a", 60, kill, notify=said.append)
        assert content(path) == whole
        verify_files(path)
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert any("1 lost" in text for text in said)
    assert not stay(before)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts Dask's own commands, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, paths: str = PATHS) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        folder = tmp_path / "dask"
        folder.mkdir(exist_ok=True)
        with (folder / f"{len(started)}.log").open("wb") as log:
            command = [sys.executable, "-m", "dask", *arguments]
            started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


def worker(start: Callable[..., subprocess.Popen[bytes]], address: str, paths: str = PATHS) -> subprocess.Popen[bytes]:
    """A worker without a nanny."""
    options = ("--no-nanny", "--nthreads", "3", "--no-dashboard", "--memory-limit", "0", "--death-timeout", "120")
    return start("worker", address, *options, paths=paths)


def scheduler(
    start: Callable[..., subprocess.Popen[bytes]], file: Path, paths: str = PATHS
) -> tuple[subprocess.Popen[bytes], str]:
    """A scheduler, which writes to a file where it is; and its address."""
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    process = start("scheduler", *options, paths=paths)
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with Client(scheduler_file=str(file), set_as_default=False) as client:
        return process, str(client.scheduler_info()["address"])


@pytest.mark.long
def test_a_worker_that_is_stopped_and_goes_on_too_late_changes_nothing(
    tmp_path: Path, whole: dict[str, bytes], processes: Callable[..., subprocess.Popen[bytes]], faults: Faults
) -> None:
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": 60, "host": "127.0.0.1"}
    with (
        faults("a worker of a cluster is stopped or hangs"),
        LocalCluster(n_workers=0, scheduler_kwargs={"worker_ttl": "10s"}, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        stopped, _ = (worker(processes, cluster.scheduler_address) for _ in range(2))
        client.wait_for_workers(2, timeout=120)
        (tmp_path / "store").mkdir()
        stop = partial(stopped.send_signal, signal.SIGSTOP)
        path = distributed(client, tmp_path / "store" / "a", 60, stop)
        assert content(path) == whole
        assert psutil.Process(stopped.pid).status() == psutil.STATUS_STOPPED
        stopped.send_signal(signal.SIGCONT)
        stopped.wait(60)  # the scheduler has given it up
        assert content(path) == whole
        assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]


class Stuck(SlowNetwork):
    """The call that finds a file hangs for ever; Dask's own thread goes on."""

    file: Path

    def forward(self, images: Any) -> Signals:
        try:
            self.file.unlink()
        except FileNotFoundError:
            return super().forward(images)
        while True:
            time.sleep(60)


def stuck(file: Path) -> dict[str, TeacherPass]:
    """What workers open of which one will hang."""
    Stuck.file = file
    return slowly(Stuck)


@pytest.mark.long
def test_a_worker_that_hangs_for_ever_is_not_waited_for(
    tmp_path: Path, whole: dict[str, bytes], faults: Faults
) -> None:
    before, said = children(), []
    file = tmp_path / "hang"
    file.touch()
    (tmp_path / "store").mkdir()
    hangs = faults("a worker of a cluster is stopped or hangs")
    with hangs, dask.config.set({"decant.patience": "2s"}), local_cluster(2, "cpu", said.append) as client:
        opened = partial(stuck, file)
        path = distributed(client, tmp_path / "store" / "a", 10**9, list, notify=said.append, opened=opened)
        assert not file.exists()
        assert content(path) == whole
    assert any("started anew" in text for text in said)
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]
    assert not stay(before)


@pytest.mark.long
def test_the_only_local_worker_that_hangs_is_started_anew(
    tmp_path: Path, whole: dict[str, bytes], faults: Faults
) -> None:
    said: list[str] = []
    file = tmp_path / "hang"
    file.touch()
    hangs = faults("a worker of a cluster is stopped or hangs")
    with hangs, dask.config.set({"decant.patience": "2s"}), local_cluster(1, "cpu", said.append) as client:
        opened = partial(stuck, file)
        path = distributed(client, tmp_path / "a", 10**9, list, notify=said.append, opened=opened)
        assert not file.exists()
        assert content(path) == whole
    assert any("started anew" in text for text in said)


@pytest.mark.long
def test_workers_that_come_and_go_all_the_time(
    tmp_path: Path,
    whole: dict[str, bytes],
    processes: Callable[..., subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    faults: Faults,
) -> None:
    """It begins without any. Twice another joins, and the one before is killed in the middle of its units."""
    monkeypatch.setattr("pipeline.store.cluster.distribution.IN_FLIGHT", 4)  # or the first would do it all meanwhile
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": 60, "host": "127.0.0.1"}
    (tmp_path / "store").mkdir()
    said: list[str] = []
    with LocalCluster(n_workers=0, **options) as cluster, Client(cluster, set_as_default=False) as client:
        begin = partial(worker, processes, cluster.scheduler_address)
        there: list[subprocess.Popen[bytes]] = []

        def notify(text: str) -> None:
            said.append(text)
            if not there:
                there.append(begin())

        class Replacing(Silent):
            marks, done = [60, 160], 0

            def advance(self, amount: int, note: str = "") -> None:
                self.done += amount
                if self.marks and self.done >= self.marks[0]:
                    self.marks.pop(0)
                    there.append(begin())
                    client.wait_for_workers(2, timeout=120)
                    there.pop(0).kill()

        with faults("a worker of a cluster is killed"), faults("a worker of a cluster is killed"):
            path = distributed(client, tmp_path / "store" / "a", 0, list, notify=notify, progress=Replacing())
            assert content(path) == whole
            assert [path.name for path in (tmp_path / "store").iterdir()] == ["a"]
        assert not Replacing.marks
    assert said[0] == "waiting for workers: there are none yet"


@pytest.mark.long
def test_after_the_scheduler_is_lost_another_goes_on(
    tmp_path: Path, whole: dict[str, bytes], processes: Callable[..., subprocess.Popen[bytes]], faults: Faults
) -> None:
    def cluster(name: str) -> tuple[subprocess.Popen[bytes], str]:
        process, address = scheduler(processes, tmp_path / f"{name}.json")
        for _ in range(2):
            worker(processes, address)
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        return process, address

    first, address = cluster("first")
    target = tmp_path / "store" / "a"
    with faults("the scheduler of a cluster is killed"):
        with (
            pytest.raises(CacheError, match=rf"(?s)lost the Dask scheduler.*{address}.*goes on after the \d+ units"),
            connect(address, lambda text: None) as client,
        ):
            distributed(client, target, 60, first.kill)
        _, address = cluster("second")
        with connect(address, lambda text: None) as client:
            path = distributed(client, target, 10**9, lambda: None, wait=False)
        assert content(path) == whole
        assert [path.name for path in target.parent.iterdir()] == ["a"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("who", "expected"),
    [
        ("scheduler", "the scheduler cannot import Decant"),
        ("worker", r"a worker cannot take Decant's work\n  got: .*No module named 'pipeline'"),
    ],
)
def test_where_decant_is_not_installed_is_said(
    tmp_path: Path, processes: Callable[..., subprocess.Popen[bytes]], who: str, expected: str
) -> None:
    """Where it is absent stands a package of its name that cannot be imported."""
    (tmp_path / "absent/pipeline").mkdir(parents=True)
    module = "raise ModuleNotFoundError(\"No module named 'pipeline'\")"
    (tmp_path / "absent/pipeline/__init__.py").write_text(module)
    paths = {"scheduler": PATHS, "worker": PATHS, who: str(tmp_path / "absent")}
    _, address = scheduler(processes, tmp_path / "scheduler.json", paths["scheduler"])
    worker(processes, address, paths["worker"])
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=120)
        with pytest.raises(CacheError, match=rf"(?s){expected}.*same version of Decant"):
            distributed(client, tmp_path / "a", 10**9, list)


class Deadly(SlowNetwork):
    """Ends the process that asks it."""

    def forward(self, images: Any) -> Signals:
        os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)


@pytest.mark.long
def test_a_unit_that_kills_its_workers_is_named(tmp_path: Path) -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 1}),
        pytest.raises(CacheError, match=r"(?s)unit \d/\d+ was given to 2 workers, and all of them died.*memory"),
        local_cluster(1, "cpu", lambda text: None) as client,
    ):
        distributed(client, tmp_path / "a", 10**9, lambda: None, opened=partial(slowly, Deadly))
