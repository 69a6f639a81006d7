"""Computes the units of a cache on the workers of a Dask cluster; this process alone commits them.

Little is sent: a worker opens data and teacher itself (`store.cluster.worker`), writes where the cache is made, and
returns a receipt. A unit may be computed twice, if a worker was lost or seemed to be: attempts have names of their own,
the first receipt counts, and the files of other attempts are deleted when the cache is published.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any
from uuid import uuid4

from distributed import Client, Future, KilledWorker, as_completed

from pipeline.errors import CacheError, PipelineError
from pipeline.progress import Progress
from pipeline.publishing.scratch import print_message
from pipeline.store.cluster import held as workers
from pipeline.store.cluster.clusters import call_scheduler
from pipeline.store.cluster.watch import HangWatch, WorkerProvenance
from pipeline.store.cluster.worker import (
    SAME_EVERYWHERE_HINT,
    UNITS_AT_ONCE,
    Assignment,
    Open,
    Receipt,
    UnitComputer,
    worker_identity,
)
from pipeline.store.format.arrays import Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.store.making.caching import Runner
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.workspace import Workspace

IN_FLIGHT = 1000
"""Units that are requested and not finished: enough for any cluster, and quickly cancelled."""

AHEAD = UNITS_AT_ONCE + 1
"""The same for each worker, if some workers hang and this process chooses among the others."""

RECEIPT_POLL_SECONDS = 0.02
"""How often this process looks for receipts."""

RECEIPT_SECONDS = 5
"""The time limit for calls of the scheduler when a command ends."""

RECONNECT_SECONDS = 1
"""The same while the client looks for its scheduler, which may be gone."""


@contextmanager
def runners_on(
    client: Client, open_teacher: Open, notify: Callable[[str], None] = print_message
) -> Iterator[Callable[[str], Runner]]:
    """Yield a function that returns the runner of a cache by its name. Runners use all workers of a cluster.

    Args:
        client: of the cluster; workers that join later are used too.
        open_teacher: called once in every worker process, when it computes its first unit.
        notify: takes messages for the user.

    Raises CacheError without a scheduler.
    """
    held = f"decant-{uuid4().hex[:8]}"
    if client.scheduler is None:
        raise CacheError("lost the Dask scheduler", fix="start one, then run the same command again")
    address = str(client.scheduler.address)  # once: a client that loses its scheduler forgets it
    _register(client, workers.Held(pickle.dumps(UnitComputer(open_teacher))), held)
    watch = HangWatch(client, notify)
    try:
        yield lambda cache: Distributed(client, address, held, cache, watch, notify)
    finally:
        # Workers stop after the current micro-batch. This process does not wait for one that hangs, nor long for a
        # scheduler that is lost. One whose stream broke is there still: this call makes a connection of its own.
        seconds = {"running": RECEIPT_SECONDS, "connecting": RECONNECT_SECONDS}.get(client.status)
        if seconds is not None:
            with suppress(Exception):
                call_scheduler(client, "unregister_worker_plugin", seconds, name=held)


def _register(client: Client, held: workers.Held, name: str) -> None:
    try:
        client.register_plugin(held, name=name)
    except OSError:
        pass  # a worker died at this moment; the scheduler has it, and so have the others and those that join
    except Exception as error:  # Dask hands on what it could not unpickle as just that
        raise CacheError("a worker cannot take Decant's work", got=error, fix=SAME_EVERYWHERE_HINT) from error


@dataclass(frozen=True)
class Distributed:
    """Computes the units of one cache on the workers of a cluster: a `Runner`.

    Args:
        client: of the cluster.
        address: of its scheduler.
        held: the name under which workers hold the `UnitComputer`.
        cache: the name of the cache.
        watch: finds units that hang.
        notify: takes messages for the user.
    """

    client: Client
    address: str
    held: str
    cache: str
    watch: HangWatch
    notify: Callable[[str], None]

    def __call__(
        self,
        teacher: TeacherPass,
        workspace: Workspace,
        layout: StoreLayout,
        units: Sequence[Unit],
        progress: Progress,
        run: dict[str, Any],
    ) -> None:
        """Have units computed, and commit them. The arguments are those of `Runner`.

        Raises CacheError, and the errors that stop a worker.
        """
        outstanding = OutstandingUnits(
            self.client, self.held, Assignment(self.cache, layout, workspace.place, worker_identity(teacher))
        )
        todo, roster, watch = set(units), WorkerProvenance(run, self.notify), self.watch
        watch.begin()

        def commit_receipts() -> None:
            for unit, receipt in outstanding.results():
                if unit not in todo:  # another attempt was first
                    continue
                if isinstance(receipt, workers.Failed) and (others := watch.failed(unit, receipt)):
                    outstanding.request([unit], others)
                    continue
                if not isinstance(receipt, Receipt):
                    raise _explained(receipt, unit, self.address, workspace)
                _commit(workspace, receipt)
                todo.remove(unit)
                roster.note(receipt)
                watch.note(receipt)
                progress.advance(len(layout.block_of(unit)))

        waiting = iter(units)
        try:
            while todo:
                if self.client.status != "running":
                    raise _lost(self.address, workspace)
                responsive = watch.responsive()
                # Workers that join compute units that are not requested yet.
                room = IN_FLIGHT if responsive is None else min(IN_FLIGHT, AHEAD * len(responsive))
                if more := list(islice(waiting, max(0, room - len(outstanding)))):
                    outstanding.request(more, responsive)
                commit_receipts()
                for unit, elsewhere in watch.hanging(outstanding, todo):
                    outstanding.request([unit], elsewhere)
                time.sleep(RECEIPT_POLL_SECONDS)
        except KeyboardInterrupt:
            with suppress(PipelineError, OSError):
                commit_receipts()
            raise
        finally:
            outstanding.cancel()


class OutstandingUnits:
    """Keeps track of the units that workers compute, and of their results.

    Args:
        client: of the cluster.
        held: the name under which workers hold the `UnitComputer`.
        assignment: of the cache.
    """

    def __init__(self, client: Client, held: str, assignment: Assignment) -> None:
        self._client = client
        self._task = partial(workers.call, held, pickle.dumps(assignment))
        self._group = f"cache-{assignment.name}-{uuid4().hex[:8]}"  # the dashboard shows it without the digits
        self._units: dict[Future[Any], tuple[Unit, int]] = {}  # and which attempt it is
        self._open: set[Unit] = set()
        self._times = 0
        self._completed = as_completed(loop=client.loop, with_results=True)
        self._ready: deque[tuple[Future[Any], Any]] = deque()

    def __len__(self) -> int:
        """Return how many units are requested and not finished."""
        return len(self._open)

    def request(self, units: Sequence[Unit], elsewhere: Collection[str] | None = None) -> None:
        """Have units computed.

        Args:
            elsewhere: by these workers alone, as long as one of them exists; None for any worker.
        """
        self._times += 1
        self._open.update(units)
        futures = self._client.map(
            self._task,
            *zip(*units, strict=True),
            key=[(self._group, *unit, self._times) for unit in units],
            pure=False,
            workers=None if elsewhere is None else list(elsewhere),
            allow_other_workers=elsewhere is not None,
        )
        self._units.update((future, (unit, self._times)) for future, unit in zip(futures, units, strict=True))
        self._completed.update(futures)

    def results(self) -> Iterator[tuple[Unit, Receipt | BaseException]]:
        """Yield the results since the last call: units, each with its receipt or the error that stopped a worker."""
        self._ready.extend(self._completed.next_batch(block=False))
        while self._ready:
            future, result = self._ready.popleft()
            if future not in self._units:  # cancelled
                continue
            unit, attempt = self._units.pop(future)
            if isinstance(result, Receipt):
                self._finish(unit, attempt)
            # Dask reports errors as type, error and traceback.
            yield unit, result[1] if isinstance(result, tuple) else result

    def _finish(self, unit: Unit, first: int) -> None:
        """Cancel later attempts. Earlier ones may hang; while they do, Dask regards their worker as busy."""
        if unit not in self._open:
            return
        self._open.remove(unit)
        later = [other for other, (its, attempt) in self._units.items() if its == unit and attempt > first]
        if later:
            for other in later:
                del self._units[other]
            with suppress(Exception):  # a client that lost its scheduler
                self._client.cancel(later)

    def unit_of(self, key: Any) -> Unit | None:
        """Return the unit that a task computes, by the key of the task; None for a task of others."""
        return Unit(*key[1:3]) if isinstance(key, tuple) and key[0] == self._group else None

    def cancel(self) -> None:
        """Cancel all units that are not finished."""
        with suppress(Exception):  # a client that lost its scheduler
            self._client.cancel(list(self._units))
        self._units.clear()
        self._open.clear()


def _commit(workspace: Workspace, receipt: Receipt) -> None:
    try:
        workspace.commit(receipt.unit.key, receipt.files, receipt.attempt)
    except FileNotFoundError as error:
        raise CacheError(
            f"what a worker on {receipt.info.host} wrote is not visible here",
            where=error.filename,
            fix="put the store on a file system that all workers share, at the same path",
        ) from error


def _explained(error: BaseException, unit: Unit, address: str, workspace: Workspace) -> BaseException:
    """Return the error to raise for one that stopped a worker: Decant's own, and errors of files, as they are."""
    if isinstance(error, (PipelineError, OSError)):
        return error
    if isinstance(error, CancelledError):
        return _lost(address, workspace)
    if isinstance(error, RuntimeError) and "deserialization" in str(error):
        return CacheError(
            "the scheduler cannot import Decant", where=address, fix=f"install it there too: {SAME_EVERYWHERE_HINT}"
        )
    if isinstance(error, workers.Failed) and error.own is not None:
        return error.own
    got = error.what if isinstance(error, workers.Failed) else f"{type(error).__name__}: {error}"
    if got.startswith(ModuleNotFoundError.__name__):
        return CacheError("a worker cannot import what this process imports", got=got, fix=SAME_EVERYWHERE_HINT)
    again = f"then run the same command again: {_goes_on(workspace)}"
    if isinstance(error, KilledWorker):
        return CacheError(
            f"unit {unit.key} was given to {error.allowed_failures + 1} workers, and all of them died or hung",
            where=error.last_worker.address,
            fix=f"look at the logs of the workers: often memory runs out; {again}",
        )
    fix = f"look at the logs of the workers; {again}"
    found = CacheError(f"a worker failed at unit {unit.key}", got=got, fix=fix)
    found.__cause__ = error
    return found


def _lost(address: str, workspace: Workspace) -> CacheError:
    fix = f"run the same command again: {_goes_on(workspace)}"
    return CacheError("lost the Dask scheduler", where=address, fix=fix)


def _goes_on(workspace: Workspace) -> str:
    return f"it goes on after the {len(workspace.units)} units that are finished"
