"""Watches the workers of a cluster: what they compute with, which of them are lost, and which hang."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain
from typing import Any, Protocol

import dask
from distributed import Client

from pipeline.publishing.fingerprint import canonical, differences
from pipeline.store.cluster.clusters import call_scheduler, patience, restart
from pipeline.store.cluster.held import Failed
from pipeline.store.cluster.worker import Receipt
from pipeline.store.format.arrays import Unit
from pipeline.store.format.provenance import versions

LOOK_SECONDS = 2.0
"""How often the scheduler is asked for its workers."""

CALL_SECONDS = 10.0
"""The time limit for a call of the scheduler."""

HANG_FACTOR = 10
"""A worker hangs if no unit was finished for this many times the time of a task."""

NAMED_UNITS = 8
"""Units that a message names."""

CUDA_LOST = "CUDA error"
"""The text of torch's errors when a process has lost its GPU, but not when memory runs out."""


class WorkerProvenance:
    """Notes in the provenance of a run what its workers computed with, and how many units.

    Args:
        run: the record of the run; `device` and `workers` are set.
        notify: takes messages for the user.
    """

    def __init__(self, run: dict[str, Any], notify: Callable[[str], None]) -> None:
        self._run, self._notify, self._here = run, notify, versions()
        self._kinds: dict[str, dict[str, Any]] = {}

    def note(self, receipt: Receipt) -> None:
        """Count the unit of a receipt; tell the user if its worker computes with something else than others do."""
        info = receipt.info
        found: dict[str, Any] = {"device": info.device, "versions": dict(info.versions)}
        kind = self._kinds.get(canonical(found))
        if kind is None:
            if (devices := self._devices()) and info.device not in devices:
                both = f"{info.device} on {info.host}, before {'; '.join(devices)}"
                self._notify(f"note: workers differ, and so may the last bits of outputs: {both}")
            for line in differences(self._here, found["versions"]):
                self._notify(f"note: other versions on {info.host}: {line}")
            kind = self._kinds[canonical(found)] = {**found, "units": 0}
        kind["units"] += 1
        self._run |= {"device": "; ".join(self._devices()), "workers": list(self._kinds.values())}

    def _devices(self) -> list[str]:
        return sorted({kind["device"] for kind in self._kinds.values()})


class UnitTasks(Protocol):
    """Tells which tasks of a cluster compute units."""

    def units_of(self, key: Any) -> Sequence[Unit]:
        """Return the units that a task computes, by the key of the task; none for a task of others."""

    def most(self) -> int:
        """Return how many units the largest task has that is not finished."""

    def stranded(self, there: Collection[str]) -> Sequence[Unit]:
        """Return the units that wait for workers which are not among those that are there."""


def keys_of(units: Sequence[Unit]) -> str:
    """Return units of the cache as messages name them, such as `unit 0/3` or `units 0/3, 1/3`.

    Args:
        units: one or more.
    """
    named = [unit.key for unit in units[:NAMED_UNITS]]
    more = f" and {len(units) - NAMED_UNITS} more" if len(units) > NAMED_UNITS else ""
    return f"{'units' if len(units) > 1 else 'unit'} {', '.join(named)}{more}"


class HangWatch:
    """Finds units that hang, and chooses workers for them: one object for all caches of a command.

    Args:
        client: of the cluster.
        notify: takes messages for the user, such as about workers that are lost or join.
    """

    def __init__(self, client: Client, notify: Callable[[str], None]) -> None:
        self._client, self._notify, self.patience = client, notify, patience()
        self._seconds: deque[float] = deque(maxlen=1000)
        self._looked = float("-inf")
        self._workers: frozenset[str] | None = None
        self._known: set[str] = set()
        self._hung: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """Begin a new cache."""
        self._last = time.monotonic()
        self._reported: dict[Unit, tuple[frozenset[str], bool]] = {}
        self._failed: dict[Unit, set[str]] = {}

    def note(self, receipt: Receipt) -> None:
        """Note that a worker has finished the unit of a receipt."""
        self._seconds.append(receipt.seconds)
        self._last = time.monotonic()
        self._known.add(receipt.worker)
        self._hung.discard(receipt.worker)

    def unit_seconds(self) -> float | None:
        """Return how long a worker takes for a unit, in the median; None if none has been finished yet."""
        return statistics.median(self._seconds) if self._seconds else None

    def count(self) -> int:
        """Return how many workers there are that do not hang; one if none is known of."""
        return max(1, len((self._workers or frozenset()) - self._hung))

    def responsive(self) -> list[str] | None:
        """Return the workers that do not hang; None if no worker hangs."""
        there = self._workers or frozenset()
        return sorted(there - self._hung) if there & self._hung else None

    def failed(self, units: Sequence[Unit], failed: Failed) -> list[str]:
        """Note that a worker failed at units. Return the workers that may try it; none if too many have tried.

        Args:
            failed: the error.
        """
        if self._workers is None:
            self._update_workers()
        for unit in units:
            self._failed.setdefault(unit, set()).add(failed.worker)
        tried = set().union(*(self._failed[unit] for unit in units))
        others = sorted((self._workers or frozenset()) - self._hung - tried)
        if not others or len(tried) > dask.config.get("distributed.scheduler.allowed-failures"):
            return []
        self._notify(f"{keys_of(units)} failed on {failed.worker}, others compute it: {failed.what.splitlines()[0]}")
        if CUDA_LOST in failed.what and failed.worker in (self._workers or ()):
            # Everything that this process does on its GPU fails from now on.
            self._notify(f"its GPU does not work any more: {failed.worker} is taken out of the cluster")
            self._workers = (self._workers or frozenset()) - {failed.worker}
            self._call("retire_workers", workers=[failed.worker], close_workers=True)
        return others

    def hanging(self, tasks: UnitTasks, todo: Collection[Unit]) -> Iterator[tuple[Unit, list[str]]]:
        """Yield units that take too long or whose workers are gone, each with the workers that do not hang.

        Args:
            tasks: of the cluster.
            todo: the units that are not finished.

        Dask itself gives the units of a worker that is dead, or does not respond, to another one. This is for workers
        that respond and are stuck, in a file system or on a GPU. Those that this process owns are restarted.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._update_workers()
        there = self._workers or frozenset()
        yield from ((unit, sorted(there - self._hung)) for unit in tasks.stranded(there))
        typical = self.unit_seconds()
        silent = now - self._last
        task = self.patience if typical is None else typical * tasks.most()
        if silent < max(self.patience, HANG_FACTOR * task):
            return
        busy: dict[Unit, set[str]] = {}
        for worker, keys in (self._call("processing") or {}).items():
            for unit in chain.from_iterable(map(tasks.units_of, keys)):
                if unit in todo:
                    busy.setdefault(unit, set()).add(worker)
        late = set().union(*busy.values())
        if silent < HANG_FACTOR * self.patience:  # a worker's first unit takes longer: it opens the teacher
            late &= self._known
        self._give_up(late - self._hung)
        others = sorted(there - self._hung)
        found: dict[frozenset[str], list[Unit]] = {}
        for unit in sorted(busy):
            stuck = frozenset(busy[unit])
            if stuck <= self._hung and self._reported.get(unit) != (stuck, bool(others)):
                self._reported[unit] = stuck, bool(others)
                found.setdefault(stuck, []).append(unit)
        for stuck, units in found.items():
            verb, what = ("take", "them") if len(units) > 1 else ("takes", "it")
            how = f"others compute {what} too" if others else "there is no other worker"
            self._notify(f"{keys_of(units)} {verb} long on {', '.join(sorted(stuck))}: {how}")
            if others:
                yield from ((unit, others) for unit in units)

    def _give_up(self, late: set[str]) -> None:
        """Restart workers, or give them no more units until they finish one."""
        try:
            again = restart(self._client, late) if late else set()
        except (OSError, TimeoutError):
            again = set()
        if again:
            self._notify(f"nothing comes from {', '.join(sorted(again))}: started anew")
            self._last = time.monotonic()
        self._hung |= late - again

    def _update_workers(self) -> None:
        cores = self._call("ncores")
        if cores is None:
            return
        before, self._workers = self._workers, frozenset(cores)
        if before is None and not self._workers:
            self._notify("waiting for workers: there are none yet")
        elif before is not None and before != self._workers:
            lost, joined = len(before - self._workers), len(self._workers - before)
            events = [f"{lost} lost"] * bool(lost) + [f"{joined} joined"] * bool(joined)
            self._notify(f"workers: {', '.join(events)}, {len(self._workers)} there")

    def _call(self, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """Return the result of the scheduler; None if it does not respond. The client notices if it is lost."""
        try:
            return dict(call_scheduler(self._client, operation, CALL_SECONDS, **arguments))
        except (OSError, TimeoutError):
            return None
