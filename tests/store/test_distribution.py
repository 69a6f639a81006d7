"""Units on the workers of a cluster: threads here, processes in `test_workers_die.py`."""

from __future__ import annotations

import errno
import pickle
import platform
import resource
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import torch
from distributed import Client, LocalCluster
from store_standins import FLOAT32, SlowNetwork, TinyNetwork, TinySamples, TinyViews, cache, content, teachers
from test_faults import UNITS, At, interrupt
from torch import Tensor

from pipeline import workers
from pipeline.errors import CacheError, DataError
from pipeline.signals import Signals
from pipeline.store import TeacherCache, TeacherPass, chunks, verify_files
from pipeline.store.arrays import Unit
from pipeline.store.artifacts import unfinished
from pipeline.store.clusters import connected, environments, local
from pipeline.store.computing import UnitComputer
from pipeline.store.distribution import Asked, crew
from pipeline.store.ledger import Ledger
from pipeline.store.watch import Watch

Opened = Callable[[], dict[str, TeacherPass]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two workers of two threads."""
    options: dict[str, Any] = {"memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": 60}
    with LocalCluster(n_workers=2, threads_per_worker=2, processes=False, **options) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    return content(cache(tmp_path_factory.mktemp("whole") / "a"))


def distributed(client: Client, target: Path, opened: Opened = teachers, **changes: Any) -> Path:
    """The tiny cache, computed by workers that open their teacher by `opened`."""
    with crew(client, opened, changes.get("notify", lambda text: None)) as runners:
        return cache(target, runner=runners("tiny"), **changes)


def test_workers_write_the_same_bytes(client: Client, tmp_path: Path, whole: dict[str, bytes]) -> None:
    counted: list[int] = []
    progress = At(70, lambda: None)
    progress.advance = lambda amount, note="": counted.append(amount)  # type: ignore[method-assign]
    path = distributed(client, tmp_path / "a", progress=progress)
    assert content(path) == whole  # the ledger too, whoever was first
    assert sum(counted) == 69
    (run,) = TeacherCache.open(path).manifest.provenance["runs"]
    assert [(kind["device"], kind["units"]) for kind in run["workers"]] == [(run["device"], UNITS)]
    assert run["views"] == 69
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    verify_files(path)


OPENED: list[str] = []


def counted(network: type[TinyNetwork] = TinyNetwork, count: int = 23) -> dict[str, TeacherPass]:
    """Two caches of one network; notes that somebody opened it."""
    OPENED.append(threading.current_thread().name)
    parts: dict[str, Any] = {"network": network(), "samples": TinySamples(count)}
    return teachers(**parts) | {"exact": teachers(**parts, config=FLOAT32)["tiny"]}


def test_a_worker_opens_the_teacher_once_for_all_caches(
    client: Client, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    OPENED.clear()
    with crew(client, counted) as runners:
        tiny = cache(tmp_path / "a", runner=runners("tiny"))
        exact = cache(tmp_path / "b", runner=runners("exact"), signals=FLOAT32)
        again = cache(tmp_path / "c", runner=runners("tiny"))
    assert content(tiny) == content(again) == whole
    assert content(exact) == content(cache(tmp_path / "d", signals=FLOAT32))
    assert 1 <= len(OPENED) <= 2


def test_what_travels_is_small_and_has_a_name(
    client: Client, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, receipts, in_flight = [], [], []
    ask, handed_in = Asked.ask, Asked.handed_in

    def asking(asked: Asked, *arguments: Any) -> None:
        tasks.append(len(pickle.dumps(asked._task)))
        ask(asked, *arguments)
        in_flight.append(len(asked))

    def handing(asked: Asked) -> Iterator[Any]:
        for unit, receipt in handed_in(asked):
            receipts.append(len(pickle.dumps(receipt)))
            yield unit, receipt

    monkeypatch.setattr(Asked, "ask", asking)
    monkeypatch.setattr(Asked, "handed_in", handing)
    monkeypatch.setattr("pipeline.store.distribution.IN_FLIGHT", 10)
    distributed(client, tmp_path / "a", partial(counted, count=100), samples=TinySamples(100))
    assert len(pickle.dumps(workers.Held(pickle.dumps(UnitComputer(partial(counted, count=100)))))) < 500
    assert max(tasks) < 4000
    assert max(in_flight) == 10
    assert len(receipts) == 3 * 13
    assert max(receipts) < 1500
    assert "cache-tiny" in cluster.scheduler.task_prefixes


class Broken(TinyNetwork):
    """Says nothing sensible of view 1 of sample 13."""

    def forward(self, images: Tensor) -> Signals:
        said, samples, views = super().forward(images), TinySamples(), TinyViews()
        parameters = views.parameters(1, samples.positions[[13]])
        wrong = images == views.apply(samples.read(np.array([13])), parameters)
        said.logits[wrong.flatten(1).all(1)] = torch.nan
        return said


def test_what_is_wrong_with_the_teacher_reads_as_in_one_process(client: Client, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="view 1 of samples image-26\n") as one:
        cache(tmp_path / "a", network=Broken())
    with pytest.raises(CacheError) as other:
        distributed(client, tmp_path / "b", partial(counted, network=Broken), network=Broken())
    assert str(one.value) == str(other.value)


def test_the_full_disk_of_a_worker_reads_as_in_one_process(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    write_chunk, left = chunks.write_chunk, iter(range(20))

    def full(path: Path, elements: Any, compression: Any) -> int:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "full", str(path))
        return write_chunk(path, elements, compression)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.store.local.write_chunk", full)
        with pytest.raises(CacheError, match=r"(?s)the disk is full.*GB more.*run the same command again"):
            distributed(client, tmp_path / "a")
    assert content(distributed(client, tmp_path / "a")) == whole


def nowhere() -> dict[str, TeacherPass]:
    raise DataError("there is no packed data set yet", where="/data/images.h5")


@pytest.mark.parametrize(
    ("opened", "expected"),
    [
        (partial(teachers, samples=TinySamples(seed=1)), r"pixels of some: expected"),
        (partial(teachers, network=TinyNetwork(seed=1)), r"teacher.weights: expected"),
        (partial(teachers, views=TinyViews(first=1)), r"views.first: expected 0, got 1"),
        (partial(teachers, micro_batch=8), r"teacher.micro_batch: expected 4, got 8"),
        (nowhere, r"cannot open the teacher or its data\n  got: there is no packed data set yet"),
    ],
    ids=["pixels", "weights", "views", "micro-batch", "data"],
)
def test_a_worker_that_sees_something_else_is_refused(
    client: Client, tmp_path: Path, opened: Opened, expected: str
) -> None:
    with pytest.raises(CacheError, match=rf"(?s)a worker on \S+ .*{expected}"):
        distributed(client, tmp_path / "a", opened)


def test_ctrl_c_keeps_what_was_handed_in(client: Client, tmp_path: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(KeyboardInterrupt):
        distributed(client, tmp_path / "a", progress=At(30, interrupt))
    (folder,) = unfinished(tmp_path / "a")
    assert 4 <= len(Ledger(folder).units) - 1 <= UNITS
    assert content(distributed(client, tmp_path / "a", wait=False)) == whole
    assert content(cache(tmp_path / "b")) == whole


STUCK = threading.Semaphore(0)
LET_GO = threading.Event()


class Stuck(TinyNetwork):
    """One of its calls, the first after it is said to be stuck, does not return before it is let go."""

    def forward(self, images: Tensor) -> Signals:
        if STUCK.acquire(blocking=False):
            LET_GO.wait(60)
        return super().forward(images)


def test_units_that_hang_are_computed_by_others(
    client: Client, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.watch.LOOK_SECONDS", 0.05)
    LET_GO.clear()
    said: list[str] = []
    STUCK.release()
    with dask.config.set({"decant.patience": "300ms"}):
        path = distributed(client, tmp_path / "a", partial(counted, network=Stuck), notify=said.append)
    assert any("takes long" in text for text in said)
    assert content(path) == whole
    LET_GO.set()
    deadline = time.monotonic() + 20
    while any(client.processing().values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert content(path) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


class Failing(TinyNetwork):
    """Fails in one of the workers, wherever the first call is, or in all."""

    error, everywhere = "CUDA error: an illegal memory access was encountered", False
    where: str | None = None

    def forward(self, images: Tensor) -> Signals:
        if here := workers.address():  # not in the process that looks at one view for its shapes
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
    assert any(f"failed on {failing}, others are asked: RuntimeError: {network.error}" in text for text in said)
    assert any("taken out of the cluster" in text for text in said) == (left == 1)


def test_a_unit_that_fails_everywhere_ends_the_command(client: Client, tmp_path: Path) -> None:
    Failing.where = None
    with pytest.raises(CacheError, match=r"(?s)a worker failed at unit \d/\d\n  got: RuntimeError: no memory\n"):
        distributed(client, tmp_path / "a", partial(counted, network=Wrong), network=Wrong())


def test_who_hangs_is_not_asked_in_later_caches(
    client: Client, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its history is kept too: a threshold of many patiences holds for the first receipt of the command alone."""
    monkeypatch.setattr("pipeline.store.watch.LOOK_SECONDS", 0.05)
    LET_GO.clear()
    said: list[str] = []
    STUCK.release()
    with (
        dask.config.set({"decant.patience": "400ms"}),
        crew(client, partial(counted, network=Stuck), said.append) as runners,
    ):
        cache(tmp_path / "a", runner=runners("tiny"))
        assert any("takes long" in text for text in said)
        said.clear()
        paths = [cache(tmp_path / name, runner=runners("tiny")) for name in "bcd"]
        LET_GO.set()
    assert not said
    assert all(content(path) == whole for path in paths)


def test_a_worker_that_joins_gets_work(
    client: Client, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.watch.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("pipeline.store.distribution.IN_FLIGHT", 6)  # so that there is something left for it
    OPENED.clear()
    said: list[str] = []
    samples = TinySamples(100)

    def join() -> None:
        cluster.scale(3)
        client.wait_for_workers(3, timeout=60)

    path = distributed(
        client,
        tmp_path / "a",
        partial(counted, network=SlowNetwork, count=100),
        samples=samples,
        progress=At(30, join),
        notify=said.append,
    )
    assert "workers: 1 joined, 3 there" in said
    assert len(OPENED) == 3
    assert content(path) == content(cache(tmp_path / "b", samples=samples))
    cluster.scale(2)


def test_a_unit_that_hangs_where_nobody_else_is_there_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ncores": {"tcp://a": 1}, "processing": {"tcp://a": [("cache-tiny-0", 1, 2, 1), "of others"]}}
    monkeypatch.setattr("pipeline.store.watch.ask", lambda client, operation, seconds: answers[operation])
    monkeypatch.setattr("pipeline.store.watch.LOOK_SECONDS", 0)
    said: list[str] = []

    class Asking:
        def unit_of(self, key: Any) -> Unit | None:
            return Unit(*key[1:3]) if key[0] == "cache-tiny-0" else None

    nobody: Any = None
    with dask.config.set({"decant.patience": "0s"}):
        watch = Watch(nobody, said.append)
        assert list(watch.hanging(Asking(), {Unit(1, 2)})) == []
        assert said == ["unit 1/2 takes long on tcp://a: there is nobody else to be asked"]
        answers["ncores"] = {"tcp://a": 1, "tcp://b": 1}
        assert list(watch.hanging(Asking(), {Unit(1, 2)})) == [(Unit(1, 2), ["tcp://b"])]
        assert list(watch.hanging(Asking(), set())) == []  # handed in by another meanwhile


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "tls://127.0.0.1:9"])
def test_without_a_scheduler_it_says_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.clusters.CONNECT_SECONDS", 0.5)
    with pytest.raises(CacheError, match=rf"(?s)cannot reach the Dask scheduler.*{address}.*dask scheduler") as caught:
        connected(address, print).__enter__()
    assert ("distributed.comm.tls" in str(caught.value)) == address.startswith("tls")


@pytest.mark.parametrize("dashboard", [True, False])
def test_a_dashboard_is_named_where_there_is_one(client: Client, cluster: LocalCluster, dashboard: bool) -> None:
    services = dict(cluster.scheduler.services)
    if not dashboard:
        cluster.scheduler.services.clear()
    said: list[str] = []
    try:
        with connected(cluster.scheduler_address, said.append):
            pass
    finally:
        cluster.scheduler.services.update(services)
    assert len(said) == dashboard
    assert all(text.startswith("dashboard: http") for text in said)


def test_a_scheduler_that_is_lost_before_a_cache_begins_is_said_to_be(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": 60, "protocol": "tcp://"}
    with LocalCluster(n_workers=0, processes=False, **options) as cluster:
        address = cluster.scheduler_address
        with connected(address, lambda text: None) as client, crew(client, teachers) as runners:
            cluster.close()
            deadline = time.monotonic() + 20
            while client.status == "running" and time.monotonic() < deadline:
                time.sleep(0.02)
            with pytest.raises(CacheError, match=rf"(?s)lost the Dask scheduler.*{address}.*after the 1 units"):
                cache(tmp_path / "a", runner=runners("tiny"))


def test_local_workers_have_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)

    def gpus(count: int, device: str) -> list[str | None]:
        return [environment.get("CUDA_VISIBLE_DEVICES") for environment in environments(count, device)]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpus(3, "auto") == ["0", "1", "2"]
    assert gpus(4, "cuda") == ["0", "1", "2", "0"]
    assert gpus(2, "cpu") == gpus(2, "cuda:1") == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,GPU-abc, 7")
    assert gpus(3, "auto") == ["5", "GPU-abc", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus(2, "auto") == [None, None]
    assert [environment["OMP_NUM_THREADS"] for environment in environments(3, "cpu")] == ["2", "2", "2"]


def page_faults() -> tuple[int, int]:
    """In a worker: pages that ten tensors of 64 MB fault in after many others, and torch's threads."""
    for _ in range(20):  # other threads may cut pieces off what was freed, until there is enough for all
        torch.ones(16_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, torch.get_num_threads()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_local_worker_keeps_memory_and_has_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with local(1, "cpu", print) as client, crew(client, teachers):
        faults, threads = client.submit(page_faults).result(timeout=60)
    assert faults < 10 * 64_000_000 // 4096 // 2
    assert threads == 2
