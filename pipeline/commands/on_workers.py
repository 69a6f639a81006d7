"""Hands functions to the workers of a Dask cluster, each of which runs one at a time, in a new process."""

from __future__ import annotations

import pickle
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from distributed import Client, Future, KilledWorker

from pipeline.commands.children import ChildFailure, Ended
from pipeline.commands.new_process import task
from pipeline.errors import CacheError, first_line
from pipeline.publishing import print_message
from pipeline.store.cluster.clusters import connect, local_cluster

TRIES = 3
"""How often a function is begun whose workers die: it may be what kills them."""

WORKERS_SECONDS = 1.0
"""How often this process looks which workers there are."""

AGAIN_HINT = "start one, then run the same command again: what is finished is kept, and goes on from its checkpoints"
SAME_HINT = "install the same version of Decant, and modules of your own, where the worker runs"


class _Placed(NamedTuple):
    number: int
    start: float
    future: Future[Any]


def cluster_of(scheduler: str | None, workers: int, device: str) -> AbstractContextManager[Client]:
    """Connect to the cluster of a scheduler, or start workers on this machine.

    Args:
        scheduler: its address; None for workers of this command.
        workers: how many.
        device: as in the configuration; they share the GPUs that it means.
    """
    return connect(scheduler, print_message) if scheduler else local_cluster(workers, device, print_message)


def run_on_workers(
    client: Client, names: Sequence[str], function: Callable[[int], Callable[[], object]]
) -> Iterator[Ended]:
    """Run functions on all workers of a cluster, in the working directory; yield each when it has ended.

    A function whose worker dies is begun again on another one. Workers that join later are used too.

    Args:
        client: of the cluster.
        names: of the functions, for people, in the order in which they begin.
        function: returns the one with a number, when it begins. It is pickled.

    Raises CacheError when the scheduler is lost.
    """
    waiting, begun = deque(range(len(names))), Counter[int]()
    running: dict[str, _Placed] = {}
    said_that_none = False
    try:
        while waiting or running:
            workers = _workers(client)
            for address, placed in list(running.items()):
                found = _found(placed)
                if found is None and not placed.future.done() and address in workers:
                    continue
                del running[address]
                if found is None:  # the worker is gone, or the scheduler gave it up
                    placed.future.cancel()
                    if begun[placed.number] < TRIES:
                        print_message(f"{names[placed.number]}: its worker {address} is lost; it goes on elsewhere")
                        waiting.appendleft(placed.number)
                        continue
                    found = ChildFailure(f"its worker died {TRIES} times; memory may have run out", 1)
                yield Ended(placed.number, time.monotonic() - placed.start, found)
            for address in sorted(workers - running.keys()):
                if waiting:
                    number = waiting.popleft()
                    begun[number] += 1
                    running[address] = _begin(client, address, number, function(number))
                    print_message(f"{names[number]}: begins on {address}")
            if not workers and not said_that_none:
                print_message("waiting for workers: the cluster has none")
                said_that_none = True
            _wait(running)
    finally:
        for placed in running.values():
            with suppress(Exception):
                placed.future.cancel()


def _workers(client: Client) -> set[str]:
    try:
        return set(client.scheduler_info(n_workers=-1)["workers"])
    except (OSError, RuntimeError) as error:  # Dask's errors of a connection are OSErrors
        raise CacheError("lost the Dask scheduler", got=first_line(error), fix=AGAIN_HINT) from None


def _begin(client: Client, address: str, number: int, function: Callable[[], object]) -> _Placed:
    future = client.submit(
        task,
        pickle.dumps(function),
        str(Path.cwd()),
        key=f"decant-{uuid4().hex}",
        workers=[address],
        allow_other_workers=False,
        pure=False,
    )
    return _Placed(number, time.monotonic(), future)


def _found(placed: _Placed) -> object | ChildFailure | None:
    """The outcome of a function; None if there is none by now, or never will be."""
    if placed.future.status == "finished":
        try:
            result: object = placed.future.result(timeout=10)
        except (OSError, CancelledError, TimeoutError):
            return None  # lost with its worker
        return result
    if placed.future.status == "error":
        error = placed.future.exception()
        if isinstance(error, KilledWorker):
            return None
        return ChildFailure(f"{type(error).__name__}: {error}\n  do: {SAME_HINT}", 1)
    return None


def _wait(running: dict[str, _Placed]) -> None:
    """Wait until one is done, or until it is time to look which workers there are."""
    until = time.monotonic() + WORKERS_SECONDS
    while time.monotonic() < until and not any(placed.future.done() for placed in running.values()):
        time.sleep(WORKERS_SECONDS / 20)
