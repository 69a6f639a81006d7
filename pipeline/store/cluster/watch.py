"""Keeps an eye on the workers of a cluster: what they compute with, who is lost, who hangs."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
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
"""How often the scheduler is asked who is there."""

ANSWER_SECONDS = 10.0
"""What it is given to answer."""

HANG_FACTOR = 10
"""Somebody hangs if nothing was handed in for so many times what a unit takes."""

CUDA_LOST = "CUDA error"
"""What torch says when a process has lost its GPU; not when memory runs out."""


class WorkerProvenance:
    """Notes in a run's provenance what its workers computed with, and how many units."""

    def __init__(self, run: dict[str, Any], notify: Callable[[str], None]) -> None:
        """run: its record, of which `device` and `workers` are set."""
        self._run, self._notify, self._here = run, notify, versions()
        self._kinds: dict[str, dict[str, Any]] = {}

    def note(self, receipt: Receipt) -> None:
        """Count a unit; say so if its worker computes with something else than the others, or than this process."""
        hand = receipt.hand
        found: dict[str, Any] = {"device": hand.device, "versions": dict(hand.versions)}
        kind = self._kinds.get(canonical(found))
        if kind is None:
            if (devices := self._devices()) and hand.device not in devices:
                both = f"{hand.device} on {hand.host}, before {'; '.join(devices)}"
                self._notify(f"note: workers differ, and so may the last bits of answers: {both}")
            for line in differences(self._here, found["versions"]):
                self._notify(f"note: other versions on {hand.host}: {line}")
            kind = self._kinds[canonical(found)] = {**found, "units": 0}
        kind["units"] += 1
        self._run |= {"device": "; ".join(self._devices()), "workers": list(self._kinds.values())}

    def _devices(self) -> list[str]:
        return sorted({kind["device"] for kind in self._kinds.values()})


class Questions(Protocol):
    """What was asked of workers."""

    def unit_of(self, key: Any) -> Unit | None:
        """The unit that a task of the cluster is about; None if the task is not ours."""


class HangWatch:
    """Finds units that hang, says which workers come and go, and knows whom to ask: one for all caches of a command."""

    def __init__(self, client: Client, notify: Callable[[str], None]) -> None:
        """The clock starts."""
        self._client, self._notify, self._patience = client, notify, patience()
        self._seconds: deque[float] = deque(maxlen=1000)
        self._looked = float("-inf")
        self._workers: frozenset[str] | None = None
        self._known: set[str] = set()
        self._hung: set[str] = set()
        self.begin()

    def begin(self) -> None:
        """A cache begins."""
        self._last = time.monotonic()
        self._said: dict[Unit, tuple[frozenset[str], bool]] = {}
        self._failed: dict[Unit, set[str]] = {}

    def note(self, receipt: Receipt) -> None:
        """Something was handed in."""
        self._seconds.append(receipt.seconds)
        self._last = time.monotonic()
        self._known.add(receipt.worker)
        self._hung.discard(receipt.worker)

    def willing(self) -> list[str] | None:
        """The workers to ask, where some of those that are there hang; else None: all."""
        there = self._workers or frozenset()
        return sorted(there - self._hung) if there & self._hung else None

    def failed(self, unit: Unit, failed: Failed) -> list[str]:
        """Somebody failed at a unit. Returns who else may be asked: nobody if too many tried."""
        if self._workers is None:
            self._look_around()
        tried = self._failed.setdefault(unit, set())
        tried.add(failed.worker)
        others = sorted((self._workers or frozenset()) - self._hung - tried)
        if not others or len(tried) > dask.config.get("distributed.scheduler.allowed-failures"):
            return []
        self._notify(f"unit {unit.key} failed on {failed.worker}, others are asked: {failed.what.splitlines()[0]}")
        if CUDA_LOST in failed.what and failed.worker in (self._workers or ()):
            # Whatever this process asks of its GPU fails from now on.
            self._notify(f"its GPU does not answer any more: {failed.worker} is taken out of the cluster")
            self._workers = (self._workers or frozenset()) - {failed.worker}
            self._ask("retire_workers", workers=[failed.worker], close_workers=True)
        return others

    def hanging(self, asked: Questions, todo: Collection[Unit]) -> Iterator[tuple[Unit, list[str]]]:
        """Units that ought to have been handed in, each with the workers that do not hang.

        Dask itself gives the units of a dead worker, or of one that shows no sign of life, to another. This is for
        those that live and are stuck, in a file system or on a GPU. Those that this process owns are started anew.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._look_around()
        typical = statistics.median(self._seconds) if self._seconds else self._patience
        silent = now - self._last
        if silent < max(self._patience, HANG_FACTOR * typical):
            return
        busy: dict[Unit, set[str]] = {}
        for worker, keys in (self._ask("processing") or {}).items():
            for unit in filter(None, map(asked.unit_of, keys)):
                if unit in todo:
                    busy.setdefault(unit, set()).add(worker)
        late = set().union(*busy.values())
        if silent < HANG_FACTOR * self._patience:  # a worker's first unit takes longer: it opens the teacher
            late &= self._known
        self._give_up(late - self._hung)
        for unit in sorted(busy):
            stuck = frozenset(busy[unit])
            others = sorted((self._workers or frozenset()) - self._hung)
            if not stuck <= self._hung or self._said.get(unit) == (stuck, bool(others)):
                continue
            self._said[unit] = stuck, bool(others)
            what = "others are asked too" if others else "there is nobody else to be asked"
            self._notify(f"unit {unit.key} takes long on {', '.join(sorted(stuck))}: {what}")
            if others:
                yield unit, others

    def _give_up(self, late: set[str]) -> None:
        """Start workers anew, or ask them for nothing before they hand something in."""
        try:
            again = restart(self._client, late) if late else set()
        except (OSError, TimeoutError):
            again = set()
        if again:
            self._notify(f"nothing comes from {', '.join(sorted(again))}: started anew")
            self._last = time.monotonic()
        self._hung |= late - again

    def _look_around(self) -> None:
        answer = self._ask("ncores")
        if answer is None:
            return
        before, self._workers = self._workers, frozenset(answer)
        if before is None and not self._workers:
            self._notify("waiting for workers: there are none yet")
        elif before is not None and before != self._workers:
            lost, joined = len(before - self._workers), len(self._workers - before)
            events = [f"{lost} lost"] * bool(lost) + [f"{joined} joined"] * bool(joined)
            self._notify(f"workers: {', '.join(events)}, {len(self._workers)} there")

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any] | None:
        """The scheduler's answer; None if it gives none: the client finds out by itself whether it is lost."""
        try:
            return dict(call_scheduler(self._client, operation, ANSWER_SECONDS, **arguments))
        except (OSError, TimeoutError):
            return None
