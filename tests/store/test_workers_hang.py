"""Workers of a cluster that hang or fail, and who does their units."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import dask
import pytest
from cluster_standins import counted, distributed
from distributed import Client, LocalCluster
from store_standins import TinyNetwork, cache, content
from torch import Tensor

from pipeline.errors import CacheError
from pipeline.signals import Signals
from pipeline.store.cluster import held as workers
from pipeline.store.cluster.distribution import runners_on
from pipeline.store.cluster.watch import HangWatch
from pipeline.store.format.arrays import Unit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes."""
    return content(cache(tmp_path_factory.mktemp("whole") / "a"))


STUCK = threading.Semaphore(0)
LET_GO = threading.Event()


class Stuck(TinyNetwork):
    """One of its calls, the first after it is said to be stuck, does not return before it is let go."""

    def forward(self, images: Tensor) -> Signals:
        if STUCK.acquire(blocking=False):
            LET_GO.wait(240)
        return super().forward(images)


def test_units_that_hang_are_computed_by_others(
    client: Client, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.cluster.watch.LOOK_SECONDS", 0.05)
    LET_GO.clear()
    said: list[str] = []
    STUCK.release()
    with dask.config.set({"decant.patience": "300ms"}):
        path = distributed(client, tmp_path / "a", partial(counted, network=Stuck), notify=said.append)
    assert any("takes long" in text for text in said)
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


def test_a_unit_that_fails_everywhere_ends_the_command(client: Client, tmp_path: Path) -> None:
    Failing.where = None
    with pytest.raises(CacheError, match=r"(?s)a worker failed at unit \d/\d\n  got: RuntimeError: no memory\n"):
        distributed(client, tmp_path / "a", partial(counted, network=Wrong), network=Wrong())


def test_who_hangs_is_not_asked_in_later_caches(
    client: Client, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its history is kept too: a threshold of many patiences holds for the first receipt of the command alone."""
    monkeypatch.setattr("pipeline.store.cluster.watch.LOOK_SECONDS", 0.05)
    LET_GO.clear()
    said: list[str] = []
    STUCK.release()
    with (
        dask.config.set({"decant.patience": "2s"}),  # nobody else may seem to hang, however busy the machine is
        runners_on(client, partial(counted, network=Stuck), said.append) as runners,
    ):
        cache(tmp_path / "a", runner=runners("tiny"))
        assert any("takes long" in text for text in said)
        said.clear()
        paths = [cache(tmp_path / name, runner=runners("tiny")) for name in "bcd"]
        LET_GO.set()
    assert not said
    assert all(content(path) == whole for path in paths)


def test_a_unit_that_hangs_where_nobody_else_is_there_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"ncores": {"tcp://a": 1}, "processing": {"tcp://a": [("cache-tiny-0", 1, 2, 1), "of others"]}}
    monkeypatch.setattr(
        "pipeline.store.cluster.watch.call_scheduler", lambda client, operation, seconds: answers[operation]
    )
    monkeypatch.setattr("pipeline.store.cluster.watch.LOOK_SECONDS", 0)
    said: list[str] = []

    class Asking:
        def unit_of(self, key: Any) -> Unit | None:
            return Unit(*key[1:3]) if key[0] == "cache-tiny-0" else None

    nobody: Any = None
    with dask.config.set({"decant.patience": "0s"}):
        watch = HangWatch(nobody, said.append)
        assert list(watch.hanging(Asking(), {Unit(1, 2)})) == []
        assert said == ["unit 1/2 takes long on tcp://a: there is no other worker"]
        answers["ncores"] = {"tcp://a": 1, "tcp://b": 1}
        assert list(watch.hanging(Asking(), {Unit(1, 2)})) == [(Unit(1, 2), ["tcp://b"])]
        assert list(watch.hanging(Asking(), set())) == []  # handed in by another meanwhile
