"""Connects to the cluster that computes units: an existing one, or workers that are started on this machine."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import dask
import torch
from dask.utils import parse_timedelta
from distributed import Client, Nanny, Scheduler, SpecCluster
from distributed.security import Security

from pipeline.allocator import WORKSPACES
from pipeline.errors import CacheError, first_line
from pipeline.progress import doing
from pipeline.store.cluster.worker import UNITS_AT_ONCE

CONNECT_SECONDS = 10
"""The time limit for a connection to a scheduler."""

RESTART_SECONDS = 30
"""The time limit for a restart of workers. Dask kills processes that have not ended after four."""

THREADS = UNITS_AT_ONCE
"""Threads of a worker. More would only wait."""

NO_PROFILE = {"distributed.worker.profile.enabled": False}
"""Dask's profile of a worker asks Python for the frames of all threads, a hundred times a second. Before Python 3.11.9
that may wait for ever, and the worker with it: https://github.com/python/cpython/issues/106883."""

TLS_HINT = (
    "name certificates and key in Dask's configuration (`distributed.comm.tls`: ca-file, client.cert, client.key)"
)

IGNORE_CTRL_C_CODE = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Workers on this machine ignore Ctrl-C: this process handles it, finishes what is being written, and ends them."""


def patience() -> float:
    """Return after how many silent seconds a worker counts as hanging: `decant.patience` in Dask's configuration."""
    return float(parse_timedelta(dask.config.get("decant.patience", 60)))


@contextmanager
def connect(address: str, notify: Callable[[str], None]) -> Iterator[Client]:
    """Connect to the scheduler at an address such as `tcp://10.0.0.1:8786`, and yield the client.

    Args:
        notify: takes messages for the user.

    Raises CacheError if the scheduler cannot be reached.
    """
    fix = "start one with `dask scheduler`, or compute on this machine with `--workers N`"
    # Checked before a client is made: this would fail later, and say less.
    if address.startswith("tls://") and Security().get_connection_args("client").get("ssl_context") is None:
        raise _unreached(address, "a scheduler that asks for certificates, and none to show", f"{TLS_HINT}; or {fix}")
    client = Client.__new__(Client)
    try:
        Client.__init__(client, address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        # Closed here, since `Client(...)` would leave one to the garbage collector. That may run while another client
        # starts its thread, and then the two wait for each other for ever: for a lock of Dask's, and for the thread.
        client.close()
        raise _unreached(address, first_line(error), fix) from None
    with client:
        if "dashboard" in client.scheduler_info(n_workers=0)["services"]:
            notify(f"dashboard: {client.dashboard_link}")
        yield client


def _unreached(address: str, got: str, fix: str) -> CacheError:
    return CacheError("cannot reach the Dask scheduler", where=address, got=got, fix=fix)


@contextmanager
def local_cluster(count: int, device: str, notify: Callable[[str], None]) -> Iterator[Client]:
    """Start `count` worker processes on this machine, and yield a client. They end with the context.

    Args:
        device: as in the configuration; with `auto` or `cuda` each worker has one of the GPUs, in turn.
        notify: takes messages for the user.
    """
    common: dict[str, Any] = {"host": "127.0.0.1", "protocol": "tcp://"}
    dashboard = find_spec("bokeh") is not None
    of_scheduler = {"port": 0, "dashboard": dashboard, "dashboard_address": "127.0.0.1:0", "worker_ttl": patience()}
    scheduler = {"cls": Scheduler, "options": {**common, **of_scheduler}}
    # The allocator's setting comes too late for threads that are there already, if they have arenas of their own.
    early = {**cores(count), **WORKSPACES, "MALLOC_ARENA_MAX": "1"}
    shared = dask.config.set({"distributed.nanny.pre-spawn-environ": early, **NO_PROFILE})
    temporary = tempfile.TemporaryDirectory(prefix="decant-workers-", ignore_cleanup_errors=True)
    with shared, kept_environment(), temporary as folder:
        of_worker = {
            "nthreads": THREADS,
            "memory_limit": 0,  # a teacher takes what it takes; pausing the worker would not make it less
            "dashboard": False,
            "silence_logs": logging.CRITICAL,  # this process prints what matters
            "local_directory": folder,
            "preload": [IGNORE_CTRL_C_CODE],
        }
        workers = {
            number: {"cls": Nanny, "options": {**common, **of_worker, "env": environment}}
            for number, environment in enumerate(environments(count, device))
        }
        with doing("starting workers"):
            cluster = SpecCluster(workers=workers, scheduler=scheduler, silence_logs=logging.CRITICAL)
        with cluster, Client(cluster, set_as_default=False) as client:
            if dashboard:
                notify(f"dashboard: {client.dashboard_link}")
            yield client


@contextmanager
def kept_environment() -> Iterator[None]:
    """Restore `os.environ` at the end of the context.

    Dask sets variables for workers there. A process that is started later would compute with their number of threads,
    and its results would differ in their last digits.
    """
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def cores(count: int) -> dict[str, str]:
    """Return the environment variables that give each of `count` workers its share of the cores.

    Without them Dask gives each one thread.
    """
    threads = max(1, torch.get_num_threads() // count)
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


def environments(count: int, device: str) -> list[dict[str, str]]:
    """Return the environment variables of each worker: its share of the cores, and one of the GPUs if there are some.

    Args:
        count: of workers.
        device: as for `local_cluster`.
    """
    gpus = _gpus() if device in ("auto", "cuda") else []
    own = [{"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {} for number in range(count)]
    return [{**cores(count), **gpu} for gpu in own]


def _gpus() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    names = visible.split(",") if visible is not None else [str(number) for number in range(count)]
    named = [name.strip() for name in names]
    # A process sees one part of a divided GPU, however many it may use: there, the count says nothing of the list.
    return named if count and all(name.startswith(("MIG-", "GPU-")) for name in named) else named[:count]


def restart(client: Client, addresses: Collection[str]) -> set[str]:
    """Restart the workers that this process owns, of some; return which.

    Args:
        client: of the cluster.
        addresses: of the workers.

    Raises OSError or TimeoutError if the scheduler does not respond.
    """
    nannies = getattr(getattr(client, "cluster", None), "workers", {}).values()
    ours = {nanny.worker_address for nanny in nannies if isinstance(nanny, Nanny)} & set(addresses)
    if ours:
        how = {"timeout": RESTART_SECONDS, "wait_for_workers": False, "on_error": "return", "stimulus_id": "hangs"}
        call_scheduler(client, "restart_workers", RESTART_SECONDS, workers=sorted(ours), **how)
    return ours


def call_scheduler(client: Client, operation: str, seconds: float, **arguments: Any) -> Any:
    """Call an operation of the scheduler, and return the result.

    Args:
        client: of the cluster.
        operation: its name.
        seconds: the time limit.
        arguments: of the operation.

    Raises OSError or TimeoutError.
    """
    return client.sync(getattr(client.scheduler, operation), callback_timeout=seconds, **arguments)
