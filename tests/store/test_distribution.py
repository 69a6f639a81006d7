"""Units on the workers of a cluster: threads here, processes in `test_workers_die.py`."""

from __future__ import annotations

import errno
import pickle
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cluster_standins import OPENED, Opened, counted, distributed
from distributed import Client, LocalCluster
from intact import verify_files
from store_standins import FLOAT32, SlowNetwork, TinyNetwork, TinySamples, TinyViews, cache, content, teachers
from test_faults import UNITS, At, interrupt
from torch import Tensor

from pipeline.errors import CacheError, DataError
from pipeline.publishing.artifacts import unfinished
from pipeline.publishing.ledger import Ledger
from pipeline.signals import Signals
from pipeline.store.cluster import held as workers
from pipeline.store.cluster.clusters import connect
from pipeline.store.cluster.distribution import runners_on
from pipeline.store.cluster.outstanding import OutstandingUnits
from pipeline.store.cluster.worker import UnitComputer
from pipeline.store.format import chunks
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.reader import TeacherCache


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    return content(cache(tmp_path_factory.mktemp("whole") / "a"))


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


def test_a_worker_opens_the_teacher_once_for_all_caches(
    client: Client, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    OPENED.clear()
    with runners_on(client, counted) as runners:
        tiny = cache(tmp_path / "a", runner=runners("tiny"))
        exact = cache(tmp_path / "b", runner=runners("exact"), signals=FLOAT32)
        again = cache(tmp_path / "c", runner=runners("tiny"))
    assert content(tiny) == content(again) == whole
    assert content(exact) == content(cache(tmp_path / "d", signals=FLOAT32))
    assert 1 <= len(OPENED) <= 2


@pytest.mark.parametrize("status", ["running", "connecting"])
def test_workers_are_freed_also_while_the_client_looks_for_its_scheduler(
    client: Client, cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    def held() -> list[str]:
        return [name for worker in cluster.workers.values() for name in worker.plugins if name.startswith("decant-")]

    with runners_on(client, counted):
        assert len(held()) == 2
        monkeypatch.setattr(client, "status", status)
    monkeypatch.undo()
    assert held() == []


def test_what_travels_is_small_and_has_a_name(
    client: Client, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, receipts, in_flight = [], [], []
    request, results = OutstandingUnits.request, OutstandingUnits.results

    def requesting(outstanding: OutstandingUnits, *arguments: Any) -> None:
        tasks.append(len(pickle.dumps(outstanding._task)))
        request(outstanding, *arguments)
        in_flight.append(len(outstanding))

    def handing(outstanding: OutstandingUnits) -> Iterator[Any]:
        for unit, receipt in results(outstanding):
            receipts.append(len(pickle.dumps(receipt)))
            yield unit, receipt

    monkeypatch.setattr(OutstandingUnits, "request", requesting)
    monkeypatch.setattr(OutstandingUnits, "results", handing)
    monkeypatch.setattr("pipeline.store.cluster.distribution.IN_FLIGHT", 10)
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
        patch.setattr("pipeline.store.local.workspace.write_chunk", full)
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


def test_a_worker_that_joins_gets_work(
    client: Client, cluster: LocalCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.cluster.watch.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("pipeline.store.cluster.distribution.IN_FLIGHT", 6)  # so that there is something left for it
    OPENED.clear()
    said: list[str] = []
    samples = TinySamples(100)

    def join() -> None:
        cluster.scale(3)
        client.wait_for_workers(3, timeout=200)

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


def test_a_scheduler_that_is_lost_before_a_cache_begins_is_said_to_be(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "silence_logs": 60, "protocol": "tcp://"}
    with LocalCluster(n_workers=0, processes=False, **options) as cluster:
        address = cluster.scheduler_address
        with connect(address, lambda text: None) as client, runners_on(client, teachers) as runners:
            cluster.close()
            deadline = time.monotonic() + 120
            while client.status == "running" and time.monotonic() < deadline:
                time.sleep(0.02)
            with pytest.raises(CacheError, match=rf"(?s)lost the Dask scheduler.*{address}.*after the 1 units"):
                cache(tmp_path / "a", runner=runners("tiny"))
