"""Cuts the units of a cache into tasks, and keeps track of those that workers compute.

A task is one unit. Where images are decoded, it is several views of one row block, and a worker decodes once for all.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from distributed import Client, Future, as_completed

from pipeline.store.cluster import held as workers
from pipeline.store.cluster.watch import HangWatch
from pipeline.store.cluster.worker import UNITS_AT_ONCE, Assignment, Receipt
from pipeline.store.format.arrays import Unit
from pipeline.store.making.shared_images import SECONDS_AT_ONCE, groups_of

Task = tuple[Unit, ...]
"""Units that a worker computes together: views of one row block."""


class _Attempt(NamedTuple):
    """At a task: its number, and the workers that alone may compute it, or none if all may."""

    task: Task
    number: int
    elsewhere: frozenset[str]


class TaskPlan:
    """Cuts units into tasks, each when there is room for it.

    Args:
        units: of the cache, to be computed.
        most: units in a task.
        watch: knows the workers, and how long they take for a unit.

    Where `most` is more than one, workers get what they compute at once and no more, so that the size of a task may be
    chosen late. It has one unit as long as nobody knows how long that takes. Then it takes two minutes at most, or the
    patience with workers: what a worker has not handed in is lost with it. Towards the end tasks become small, so that
    no worker has many units while others have none.
    """

    def __init__(self, units: Collection[Unit], most: int, watch: HangWatch) -> None:
        self._watch, self._most = watch, most
        self._left = len(units)
        self._groups = groups_of(units, most, self._size)

    def next(self, outstanding: int, limit: int) -> list[Task]:
        """Return the tasks to request now.

        Args:
            outstanding: tasks that are requested and not finished.
            limit: of such tasks.
        """
        tasks: list[Task] = []
        room = limit if self._most == 1 else min(limit, self._at_once())
        while outstanding + len(tasks) < room and (task := next(self._groups, None)):
            tasks.append(task)
            self._left -= len(task)
        return tasks

    def _at_once(self) -> int:
        """Return how many tasks the workers compute at once: one each, as long as all that is known is their number."""
        return self._watch.count() * (1 if self._watch.unit_seconds() is None else UNITS_AT_ONCE)

    def _size(self) -> int:
        """Return how many units the next task should have."""
        seconds = self._watch.unit_seconds()
        if seconds is None:
            return 1
        # A worker then ends at most one task after the others, and as many units as this task has are left for each.
        balanced = self._left // (UNITS_AT_ONCE * self._watch.count())
        return min(balanced, int(min(SECONDS_AT_ONCE, self._watch.patience) / max(seconds, 1e-9)))


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
        self._tasks: dict[Future[Any], _Attempt] = {}
        self._open: dict[Unit, Future[Any]] = {}  # the last attempt at it
        self._times = 0
        self._completed = as_completed(loop=client.loop, with_results=True)
        self._ready: deque[tuple[Future[Any], Any]] = deque()
        self._receipts: deque[tuple[Task, Receipt]] = deque()

    def __len__(self) -> int:
        """Return how many tasks are requested and not finished. Earlier attempts at the same units do not count."""
        return len(set(self._open.values()))

    def request(self, tasks: Sequence[Task], elsewhere: Collection[str] | None = None) -> None:
        """Have units computed.

        Args:
            tasks: the units, with those that are computed together.
            elsewhere: by these workers alone; None or empty for any worker.

        Dask would let others help with what they "may" compute too: a worker of several threads, one of which hangs,
        looks idle to it. What waits for workers of which none is left is `stranded`.
        """
        self._times += 1
        blocks = [task[0].block for task in tasks]
        views = [tuple(unit.view for unit in task) for task in tasks]
        futures = self._client.map(
            self._task,
            blocks,
            views,
            key=[(self._group, self._times, block, *its) for block, its in zip(blocks, views, strict=True)],
            pure=False,
            workers=list(elsewhere) if elsewhere else None,
        )
        for future, task in zip(futures, tasks, strict=True):
            self._tasks[future] = _Attempt(task, self._times, frozenset(elsewhere or ()))
            self._open.update(dict.fromkeys(task, future))
        self._completed.update(futures)

    def results(self) -> Iterator[tuple[Task, Receipt | BaseException]]:
        """Yield the results since the last call: receipts, or the error that stopped a worker, each with the task.

        After Ctrl-C in between, another call yields what is left.
        """
        self._ready.extend(self._completed.next_batch(block=False))
        while self._receipts or self._ready:
            if self._receipts:
                yield self._receipts.popleft()
                continue
            future, result = self._ready.popleft()
            if future not in self._tasks:  # cancelled
                continue
            task, attempt, _ = self._tasks.pop(future)
            if isinstance(result, tuple) and isinstance(result[0], Receipt):
                self._receipts.extend((task, receipt) for receipt in result)
                self._finish(task, attempt)
            else:  # Dask reports errors as type, error and traceback
                yield task, result[1] if isinstance(result, tuple) else result

    def _finish(self, task: Task, first: int) -> None:
        """Cancel later attempts. Earlier ones may hang; while they do, Dask regards their worker as busy."""
        finished = set(task) & self._open.keys()
        for unit in finished:
            del self._open[unit]
        later = [
            other
            for other, (its, number, _) in self._tasks.items()
            if number > first and finished & set(its) and not self._open.keys() & set(its)
        ]
        if later:
            for other in later:
                del self._tasks[other]
            with suppress(Exception):  # a client that lost its scheduler
                self._client.cancel(later)

    def units_of(self, key: Any) -> Task:
        """Return the units that a task computes, by the key of the task; none for a task of others."""
        if not isinstance(key, tuple) or key[0] != self._group:
            return ()
        return tuple(Unit(view, key[2]) for view in key[3:])

    def most(self) -> int:
        """Return how many units the largest task has that is not finished."""
        return max((len(attempt.task) for attempt in self._tasks.values()), default=1)

    def stranded(self, there: Collection[str]) -> list[Unit]:
        """Return the units that wait for workers which are there no more.

        Args:
            there: the addresses of all workers.
        """
        return [
            unit
            for unit, future in self._open.items()
            if (attempt := self._tasks.get(future)) and attempt.elsewhere and attempt.elsewhere.isdisjoint(there)
        ]

    def cancel(self) -> None:
        """Cancel all units that are not finished."""
        with suppress(Exception):  # a client that lost its scheduler
            self._client.cancel(list(self._tasks))
        self._tasks.clear()
        self._open.clear()
