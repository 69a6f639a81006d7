"""How a cluster is reached, and what local workers are started with."""

from __future__ import annotations

import gc
import os
import platform
import resource

import pytest
import torch
from distributed import Client, LocalCluster
from store_standins import teachers

from pipeline.errors import CacheError
from pipeline.store.cluster.clusters import connect, environments, local_cluster
from pipeline.store.cluster.distribution import runners_on


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x", "tls://127.0.0.1:9"])
def test_without_a_scheduler_it_says_so(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.store.cluster.clusters.CONNECT_SECONDS", 0.5)
    with pytest.raises(CacheError, match=rf"(?s)cannot reach the Dask scheduler.*{address}.*dask scheduler") as caught:
        connect(address, print).__enter__()
    assert ("distributed.comm.tls" in str(caught.value)) == address.startswith("tls")
    # None is left to the garbage collector, which may run while another client starts: both would wait for ever.
    assert {each.status for each in gc.get_objects() if type(each) is Client} <= {"running", "closed"}


@pytest.mark.parametrize("dashboard", [True, False])
def test_a_dashboard_is_named_where_there_is_one(client: Client, cluster: LocalCluster, dashboard: bool) -> None:
    services = dict(cluster.scheduler.services)
    if not dashboard:
        cluster.scheduler.services.clear()
    said: list[str] = []
    try:
        with connect(cluster.scheduler_address, said.append):
            pass
    finally:
        cluster.scheduler.services.update(services)
    assert len(said) == dashboard
    assert all(text.startswith("dashboard: http") for text in said)


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
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a, MIG-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # CUDA shows a process one part of a divided GPU
    assert gpus(3, "auto") == ["MIG-a", "MIG-b", "MIG-a"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert gpus(2, "auto") == [None, None]
    assert [environment["OMP_NUM_THREADS"] for environment in environments(3, "cpu")] == ["2", "2", "2"]


def page_faults() -> tuple[int, int]:
    """In a worker: pages that ten tensors of 40 MB fault in after many others, and torch's threads.

    What is larger than 32 MB, glibc maps anew each time unless it is told otherwise.
    """
    for _ in range(20):  # other threads may cut pieces off what was freed, until there is enough for all
        torch.ones(10_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, torch.get_num_threads()


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_a_local_worker_keeps_memory_has_its_share_of_the_cores_and_leaves_no_environment_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    before = dict(os.environ)
    with local_cluster(1, "cpu", print) as client, runners_on(client, teachers):
        faults, threads = client.submit(page_faults).result(timeout=200)
        assert client.submit(os.getenv, "MKL_NUM_THREADS").result(timeout=200) == "2"
        # Read by cuBLAS in a worker's process, not in this one, which may have begun with other workspaces.
        assert client.submit(os.getenv, "CUBLAS_WORKSPACE_CONFIG").result(timeout=200) == ":4096:8"
    assert dict(os.environ) == before
    assert faults < 10 * 40_000_000 // 4096 // 2
    assert threads == 2
