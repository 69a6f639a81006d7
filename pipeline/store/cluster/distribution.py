"""Computes the units of a cache on the workers of a Dask cluster; this process alone commits them.

Little is sent: a worker opens data and teacher itself (`store.cluster.worker`), writes where the cache is made, and
returns a receipt. A unit may be computed twice, if a worker was lost or seemed to be: attempts have names of their own,
the first receipt counts, and the files of other attempts are deleted when the cache is published.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from distributed import Client, KilledWorker

from pipeline.errors import CacheError, PipelineError
from pipeline.progress import Progress
from pipeline.publishing.scratch import print_message
from pipeline.store.cluster import held as workers
from pipeline.store.cluster.clusters import call_scheduler
from pipeline.store.cluster.outstanding import OutstandingUnits, Task, TaskPlan
from pipeline.store.cluster.watch import HangWatch, WorkerProvenance, keys_of
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
from pipeline.store.making.shared_images import most_at_once
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.workspace import Workspace

IN_FLIGHT = 1000
"""Tasks that are requested and not finished: enough for any cluster, and quickly cancelled."""

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
        plan = TaskPlan(units, most_at_once(layout, teacher.samples, UNITS_AT_ONCE), watch)
        watch.begin()

        def commit_receipts() -> None:
            for task, result in outstanding.results():
                left = [unit for unit in task if unit in todo]
                if not left or (isinstance(result, Receipt) and result.unit not in todo):  # another attempt was first
                    continue
                if isinstance(result, workers.Failed) and (others := watch.failed(left, result)):
                    outstanding.request([(unit,) for unit in left], others)
                    continue
                if not isinstance(result, Receipt):
                    raise _explained(result, task, self.address, workspace)
                _commit(workspace, result)
                todo.remove(result.unit)
                roster.note(result)
                watch.note(result)
                progress.advance(len(layout.block_of(result.unit)))

        try:
            while todo:
                if self.client.status != "running":
                    raise _lost(self.address, workspace)
                responsive = watch.responsive()
                # Workers that join compute units that are not requested yet.
                room = IN_FLIGHT if responsive is None else min(IN_FLIGHT, AHEAD * len(responsive))
                if more := plan.next(len(outstanding), room):
                    outstanding.request(more, responsive)
                commit_receipts()
                for unit, elsewhere in watch.hanging(outstanding, todo):
                    outstanding.request([(unit,)], elsewhere)
                time.sleep(RECEIPT_POLL_SECONDS)
        except KeyboardInterrupt:
            with suppress(PipelineError, OSError):
                commit_receipts()
            raise
        finally:
            outstanding.cancel()


def _commit(workspace: Workspace, receipt: Receipt) -> None:
    try:
        workspace.commit(receipt.unit.key, receipt.files, receipt.attempt)
    except FileNotFoundError as error:
        raise CacheError(
            f"what a worker on {receipt.info.host} wrote is not visible here",
            where=error.filename,
            fix="put the store on a file system that all workers share, at the same path",
        ) from error


def _explained(error: BaseException, task: Task, address: str, workspace: Workspace) -> BaseException:
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
            f"{keys_of(task)} was given to {error.allowed_failures + 1} workers, and all of them died or hung",
            where=error.last_worker.address,
            fix=f"look at the logs of the workers: often memory runs out; {again}",
        )
    fix = f"look at the logs of the workers; {again}"
    found = CacheError(f"a worker failed at {keys_of(task)}", got=got, fix=fix)
    found.__cause__ = error
    return found


def _lost(address: str, workspace: Workspace) -> CacheError:
    fix = f"run the same command again: {_goes_on(workspace)}"
    return CacheError("lost the Dask scheduler", where=address, fix=fix)


def _goes_on(workspace: Workspace) -> str:
    return f"it goes on after the {len(workspace.units)} units that are finished"
