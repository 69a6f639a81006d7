"""Computes the units of a cache on the workers of a Dask cluster; this process alone commits them.

What travels is small: a worker opens data and teacher itself (`store.cluster.worker`), writes where the cache is
made, and hands in a receipt. A unit may be computed twice, where a worker was lost or seemed to be: attempts have
names of their own, the first receipt counts, and what is left of the others is swept when the cache is published.
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
from pipeline.publishing.scratch import say
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
"""Units that are asked for and not handed in: enough for any cluster, and soon cancelled."""

AHEAD = UNITS_AT_ONCE + 1
"""The same for each worker, where some hang and this process chooses who is asked."""

RECEIPT_POLL_SECONDS = 0.02
"""How often receipts are looked for."""

RECEIPT_SECONDS = 5
"""What the scheduler is given to do as it is told when all is over."""


@contextmanager
def runners_on(
    client: Client, open_teacher: Open, notify: Callable[[str], None] = say
) -> Iterator[Callable[[str], Runner]]:
    """Runners by the name of the cache, which use all workers of a cluster, those that join later too.

    open_teacher: called once in every worker process, when it computes its first unit.
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
        # Workers stop after the micro-batch in hand. One that hangs is not waited for.
        with suppress(Exception):
            call_scheduler(client, "unregister_worker_plugin", RECEIPT_SECONDS, name=held)


def _register(client: Client, held: workers.Held, name: str) -> None:
    try:
        client.register_plugin(held, name=name)
    except OSError:
        pass  # a worker died at this moment; the scheduler has it, and so have the others and those that join
    except Exception as error:  # Dask hands on what it could not unpickle as just that
        raise CacheError("a worker cannot take Decant's work", got=error, fix=SAME_EVERYWHERE_HINT) from error


@dataclass(frozen=True)
class Distributed:
    """The runner of one cache. address: of the scheduler. held: under which name workers hold what computes units."""

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
        """Have units computed, and commit them. Raises CacheError, and whatever stops a worker."""
        asked = OutstandingUnits(
            self.client, self.held, Assignment(self.cache, layout, workspace.place, worker_identity(teacher))
        )
        todo, roster, watch = set(units), WorkerProvenance(run, self.notify), self.watch
        watch.begin()

        def commit_receipts() -> None:
            for unit, receipt in asked.handed_in():
                if unit not in todo:  # another attempt was first
                    continue
                if isinstance(receipt, workers.Failed) and (others := watch.failed(unit, receipt)):
                    asked.ask([unit], others)
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
                willing = watch.willing()
                # Those who join are asked too: for units that are not asked for yet.
                room = IN_FLIGHT if willing is None else min(IN_FLIGHT, AHEAD * len(willing))
                if more := list(islice(waiting, max(0, room - len(asked)))):
                    asked.ask(more, willing)
                commit_receipts()
                for unit, elsewhere in watch.hanging(asked, todo):
                    asked.ask([unit], elsewhere)
                time.sleep(RECEIPT_POLL_SECONDS)
        except KeyboardInterrupt:
            with suppress(PipelineError, OSError):
                commit_receipts()
            raise
        finally:
            asked.cancel()


class OutstandingUnits:
    """Units that workers were asked for, and what they handed in."""

    def __init__(self, client: Client, held: str, assignment: Assignment) -> None:
        """Nothing is asked for yet."""
        self._client = client
        self._task = partial(workers.call, held, pickle.dumps(assignment))
        self._group = f"cache-{assignment.name}-{uuid4().hex[:8]}"  # what the dashboard shows, but for the digits
        self._units: dict[Future[Any], tuple[Unit, int]] = {}  # and which attempt it is
        self._open: set[Unit] = set()
        self._times = 0
        self._completed = as_completed(loop=client.loop, with_results=True)
        self._ready: deque[tuple[Future[Any], Any]] = deque()

    def __len__(self) -> int:
        """Units that nobody has handed in."""
        return len(self._open)

    def ask(self, units: Sequence[Unit], elsewhere: Collection[str] | None = None) -> None:
        """Ask for units. elsewhere: of these workers alone, as long as one of them is there."""
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

    def handed_in(self) -> Iterator[tuple[Unit, Receipt | BaseException]]:
        """What came since the last call: receipts, or what stopped a worker."""
        self._ready.extend(self._completed.next_batch(block=False))
        while self._ready:
            future, result = self._ready.popleft()
            if future not in self._units:  # cancelled
                continue
            unit, attempt = self._units.pop(future)
            if isinstance(result, Receipt):
                self._handed_in(unit, attempt)
            # Dask says what went wrong as type, error and traceback.
            yield unit, result[1] if isinstance(result, tuple) else result

    def _handed_in(self, unit: Unit, first: int) -> None:
        """Cancel later attempts. Earlier ones may hang; as long as they do, Dask knows that their worker is busy."""
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
        """The unit that a task is about; None if the task is not ours."""
        return Unit(*key[1:3]) if isinstance(key, tuple) and key[0] == self._group else None

    def cancel(self) -> None:
        """Ask for nothing any more."""
        with suppress(Exception):  # a client that lost its scheduler
            self._client.cancel(list(self._units))
        self._units.clear()
        self._open.clear()


def _commit(workspace: Workspace, receipt: Receipt) -> None:
    try:
        workspace.commit(receipt.unit.key, receipt.files, receipt.attempt)
    except FileNotFoundError as error:
        raise CacheError(
            f"what a worker on {receipt.hand.host} wrote is not to be seen here",
            where=error.filename,
            fix="put the store on a file system that all workers share, at the same path",
        ) from error


def _explained(error: BaseException, unit: Unit, address: str, workspace: Workspace) -> BaseException:
    """What to tell about what stopped a worker: what Decant says itself, and errors of files, as they are."""
    if isinstance(error, (PipelineError, OSError)):
        return error
    if isinstance(error, CancelledError):
        return _lost(address, workspace)
    if isinstance(error, RuntimeError) and "deserialization" in str(error):
        return CacheError(
            "the scheduler cannot import Decant", where=address, fix=f"install it there too: {SAME_EVERYWHERE_HINT}"
        )
    again = f"then run the same command again: {_goes_on(workspace)}"
    if isinstance(error, KilledWorker):
        return CacheError(
            f"unit {unit.key} was given to {error.allowed_failures + 1} workers, and all of them died or hung",
            where=error.last_worker.address,
            fix=f"look at the logs of the workers: often memory runs out; {again}",
        )
    fix = f"look at the logs of the workers; {again}"
    got = error.what if isinstance(error, workers.Failed) else f"{type(error).__name__}: {error}"
    found = CacheError(f"a worker failed at unit {unit.key}", got=got, fix=fix)
    found.__cause__ = error
    return found


def _lost(address: str, workspace: Workspace) -> CacheError:
    fix = f"run the same command again: {_goes_on(workspace)}"
    return CacheError("lost the Dask scheduler", where=address, fix=fix)


def _goes_on(workspace: Workspace) -> str:
    return f"it goes on after the {len(workspace.units)} units that are finished"
