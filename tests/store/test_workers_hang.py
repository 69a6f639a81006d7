"""Workers of a cluster that hang or fail, and who does their units."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask
import pytest
from cluster_standins import counted, distributed
from distributed import Client, LocalCluster
from store_standins import TinyNetwork, cache, content
from test_faults import At
from torch import Tensor

from pipeline.errors import CacheError, OwnCodeError
from pipeline.progress import Silent
from pipeline.signals import Signals
from pipeline.store.cluster import held as workers
from pipeline.store.cluster.distribution import runners_on
from pipeline.store.cluster.outstanding import OutstandingUnits
from pipeline.store.cluster.watch import HangWatch
from pipeline.store.cluster.worker import Receipt, WorkerInfo
from pipeline.store.format.arrays import Unit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    return content(cache(tmp_path_factory.mktemp("whole") / "a"))


class Clock:
    """What a command takes for the time: it stands still, so that nobody seems to hang, however busy the machine is."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now, self._client = 0.0, None
        patch.setattr("pipeline.store.cluster.watch.time", SimpleNamespace(monotonic=self._read))

    def _read(self) -> float:
        if self._client is not None and sum(map(bool, self._client.processing().values())) == 1:
            self.now += 1e6
        return self.now

    def jumps(self, client: Client) -> Silent:
        """From the first unit on, by more than anybody's patience, whenever one worker alone has something left."""
        return At(1, partial(setattr, self, "_client", client))

    def stands_still(self) -> None:
        self._client = None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    Stuck.where = None
    yield Clock(monkeypatch)
    LET_GO.set()  # after a failure, too


STUCK = threading.Semaphore(0)
LET_GO = threading.Event()


class Stuck(TinyNetwork):
    """Does not return before it is let go, in the worker whose call is the first after it is said to be stuck.

    In all threads of it: a worker that answers from another thread does not hang.
    """

    where: str | None = None

    def forward(self, images: Tensor) -> Signals:
        here = workers.worker_address()
        if here is not None and STUCK.acquire(blocking=False):
            Stuck.where = here
        if here is not None and here == Stuck.where:
            LET_GO.wait(240)
        return super().forward(images)


def test_units_that_hang_are_computed_by_others(
    client: Client, tmp_path: Path, whole: dict[str, bytes], clock: Clock
) -> None:
    LET_GO.clear()
    said: list[str] = []
    STUCK.release()
    opened, progress = partial(counted, network=Stuck), clock.jumps(client)
    path = distributed(client, tmp_path / "a", opened, notify=said.append, progress=progress)
    assert any(" long on " in text for text in said)
    assert content(path) == whole
    LET_GO.set()
    deadline = time.monotonic() + 120
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert content(path) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Failing(TinyNetwork):
    """Fails in one of the workers, wherever the first call is, or in all."""

    error, everywhere = "CUDA error: an illegal memory access was encountered", False
    where: str | None = None

    def forward(self, images: Tensor) -> Signals:
        if here := workers.worker_address():  # not in the process that looks at one view for its shapes
            Failing.where = Failing.where or here
            if self.everywhere or here == Failing.where:
                raise RuntimeError(self.error)
            time.sleep(0.01)
        return super().forward(images)


class NoMemory(Failing):
    """Not so that nothing works any more."""

    error = "no memory"


class Wrong(NoMemory):
    """Fails everywhere."""

    everywhere = True


@pytest.mark.parametrize(("network", "left"), [(Failing, 1), (NoMemory, 2)])
def test_where_one_worker_fails_others_do_its_units(
    tmp_path: Path, whole: dict[str, bytes], network: type[Failing], left: int
) -> None:
    Failing.where = None
    said: list[str] = []
    options: dict[str, Any] = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    with (
        LocalCluster(n_workers=2, threads_per_worker=2, processes=False, **options) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        opened = partial(counted, network=network)
        path = distributed(client, tmp_path / "a", opened, network=network(), notify=said.append)
        assert content(path) == whole
        assert len(client.nthreads()) == left
        failing = Failing.where
        assert failing is not None
        assert (failing in client.nthreads()) == (left == 2)
    assert any(f"failed on {failing}, others compute it: RuntimeError: {network.error}" in text for text in said)
    assert any("taken out of the cluster" in text for text in said) == (left == 1)


@pytest.mark.parametrize("own", [False, True])
def test_a_unit_that_fails_everywhere_ends_the_command(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool
) -> None:
    Failing.where = None
    monkeypatch.chdir(Path(__file__).parent if own else tmp_path)  # code below it is the user's own
    expected = r"(?s)a worker failed at unit \d/\d\n  got: RuntimeError: no memory\n"
    if own:
        expected = r"(?s)code of your own failed: RuntimeError: no memory\n  where: \S+\.py, line \d+, view \d of "
    with pytest.raises(OwnCodeError if own else CacheError, match=expected):
        distributed(client, tmp_path / "a", partial(counted, network=Wrong), network=Wrong())


def test_who_hangs_is_not_asked_in_later_caches(
    client: Client, tmp_path: Path, whole: dict[str, bytes], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ticking(Silent):
        def advance(self, amount: int, note: str = "") -> None:
            clock.now += 3.0  # so that the scheduler is asked who is there, and nobody seems to hang

    by: list[str] = []
    note = HangWatch.note
    monkeypatch.setattr(HangWatch, "note", lambda self, receipt: (by.append(receipt.worker), note(self, receipt)))
    LET_GO.clear()
    said: list[str] = []
    STUCK.release()
    with runners_on(client, partial(counted, network=Stuck), said.append) as runners:
        cache(tmp_path / "a", runner=runners("tiny"), progress=clock.jumps(client))
        clock.stands_still()
        # On a busy machine another worker may be named besides, and is asked again once it has answered.
        assert any(" long on " in text and str(Stuck.where) in text for text in said), said
        said.clear()
        by.clear()
        paths = [cache(tmp_path / name, runner=runners("tiny"), progress=Ticking()) for name in "bcd"]
        LET_GO.set()
    assert not said
    assert all(content(path) == whole for path in paths)
    assert Stuck.where in client.nthreads()
    assert len(by) == 3 * 9
    assert Stuck.where not in by


ASKED: list[str] = []


class Asked:
    """Workers hold it in place of a teacher: notes which of them it is, and takes a moment."""

    def __call__(self, assignment: bytes, block: int, views: tuple[int, ...], worker: str) -> tuple[Receipt, ...]:
        ASKED.append(worker)
        time.sleep(0.02)
        info = WorkerInfo("host", "cpu", {})
        return tuple(Receipt(Unit(view, block), "attempt", {}, 0.02, info, worker) for view in views)

    def close(self) -> None:
        """Has nothing to close."""


def hang() -> None:
    """As a thread of a worker does."""
    LET_GO.wait(240)


def test_a_worker_that_hangs_in_one_of_two_threads_gets_nothing_that_is_meant_for_others(client: Client) -> None:
    client.register_plugin(workers.Held(pickle.dumps(Asked())), name="asked")
    assignment: Any = SimpleNamespace(name="asked")
    outstanding = OutstandingUnits(client, "asked", assignment)

    def completed(count: int) -> None:
        while count:
            count -= len(list(outstanding.results()))

    outstanding.request([(Unit(0, block),) for block in range(8)])  # Dask moves none of unknown length
    completed(8)
    hangs, works = client.nthreads()
    LET_GO.clear()
    held = client.submit(hang, workers=[hangs])
    ASKED.clear()
    outstanding.request([(Unit(1, block),) for block in range(60)], [works])
    completed(60)
    assert set(ASKED) == {works}
    LET_GO.set()
    held.result()
    client.unregister_worker_plugin("asked")


def test_units_whose_workers_are_gone_are_given_to_those_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, answers = watched(monkeypatch, [], "1h")
    assert list(watch.hanging(Asking(waits_for="tcp://a"), {Unit(1, 2)})) == []
    answers["ncores"] = {"tcp://b": 1}
    assert list(watch.hanging(Asking(waits_for="tcp://a"), {Unit(1, 2)})) == [(Unit(1, 2), ["tcp://b"])]
    answers["ncores"] = {}
    assert list(watch.hanging(Asking(waits_for="tcp://a"), {Unit(1, 2)})) == [(Unit(1, 2), [])]


class Asking:
    """What was asked for: unit 1/2, and something else by others."""

    def __init__(self, most: int = 1, waits_for: str | None = None) -> None:
        self._most, self._waits_for = most, waits_for

    def units_of(self, key: Any) -> tuple[Unit, ...]:
        return tuple(Unit(view, key[1]) for view in key[2:]) if key[0] == "cache-tiny-0" else ()

    def most(self) -> int:
        return self._most

    def stranded(self, there: Collection[str]) -> tuple[Unit, ...]:
        return () if self._waits_for in (None, *there) else (Unit(1, 2),)


def watched(monkeypatch: pytest.MonkeyPatch, said: list[str], patience: str) -> tuple[HangWatch, dict[str, Any]]:
    """A watch over a worker that has a unit in hand, and what the scheduler answers."""
    answers = {"ncores": {"tcp://a": 1}, "processing": {"tcp://a": [("cache-tiny-0", 2, 1), "of others"]}}
    monkeypatch.setattr(
        "pipeline.store.cluster.watch.call_scheduler", lambda client, operation, seconds: answers[operation]
    )
    monkeypatch.setattr("pipeline.store.cluster.watch.LOOK_SECONDS", 0)
    nobody: Any = None
    with dask.config.set({"decant.patience": patience}):
        return HangWatch(nobody, said.append), answers


def test_a_unit_that_hangs_where_nobody_else_is_there_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    watch, answers = watched(monkeypatch, said, "0s")
    assert list(watch.hanging(Asking(), {Unit(1, 2)})) == []
    assert said == ["unit 1/2 takes long on tcp://a: there is no other worker"]
    answers["ncores"] = {"tcp://a": 1, "tcp://b": 1}
    assert list(watch.hanging(Asking(), {Unit(1, 2)})) == [(Unit(1, 2), ["tcp://b"])]
    assert list(watch.hanging(Asking(), set())) == []  # handed in by another meanwhile


def test_only_the_first_unit_of_a_command_may_take_long(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A worker opens the teacher then: many patiences. Its history is kept for the caches that follow."""
    said: list[str] = []
    watch, answers = watched(monkeypatch, said, "1s")
    answers["ncores"] = {"tcp://a": 1, "tcp://b": 1}
    clock.now += 5
    assert list(watch.hanging(Asking(), {Unit(1, 2)})) == []
    watch.note(Receipt(Unit(0, 0), "attempt", {}, 0.01, WorkerInfo("host", "cpu", {}), "tcp://a"))
    watch.begin()
    clock.now += 5
    assert list(watch.hanging(Asking(), {Unit(1, 2)})) == [(Unit(1, 2), ["tcp://b"])]


def test_a_worker_may_take_as_long_as_all_views_of_its_task(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Ten times as long as two units of a second: the patience of eight seconds is less."""
    said: list[str] = []
    watch, answers = watched(monkeypatch, said, "8s")
    answers["ncores"] = {"tcp://a": 1, "tcp://b": 1}
    answers["processing"] = {"tcp://a": [("cache-tiny-0", 2, 0, 1), "of others"]}
    watch.note(Receipt(Unit(0, 0), "attempt", {}, 1.0, WorkerInfo("host", "cpu", {}), "tcp://a"))
    units = [Unit(0, 2), Unit(1, 2)]
    clock.now += 19
    assert list(watch.hanging(Asking(most=2), set(units))) == []
    clock.now += 2
    assert list(watch.hanging(Asking(most=2), set(units))) == [(unit, ["tcp://b"]) for unit in units]
    assert said == ["units 0/2, 1/2 take long on tcp://a: others compute them too"]
