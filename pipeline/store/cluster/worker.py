"""Computes units in a worker of a cluster: opens the teacher once, computes, writes, and returns receipts."""

from __future__ import annotations

import gc
import hashlib
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from threading import Event, Lock, Semaphore, Thread, Timer
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from pipeline.errors import CacheError, PipelineError
from pipeline.progress import Silent
from pipeline.publishing.fingerprint import differences
from pipeline.store.format.arrays import Unit
from pipeline.store.format.identity import SCHEMA
from pipeline.store.format.layout import StoreLayout
from pipeline.store.format.provenance import device_name, versions
from pipeline.store.format.sections import TeacherIdentity, ViewsIdentity
from pipeline.store.making.filling import compute_units
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.workspace import Place

Open = Callable[[], Mapping[str, TeacherPass]]
"""A function that opens the teacher for every cache of a command, by the name of the cache. It can be pickled."""

COMPARED = 64
"""Samples that a worker renders to compare its pixels with those of the process that commits."""

UNITS_AT_ONCE = 3
"""Tasks in one worker: one is rendered, one the teacher computes, one is written. Memory holds the units of these."""

SAME_EVERYWHERE_HINT = (
    "give every worker the data and the weights at the same paths, the same version of Decant, and modules of your own "
    "where Python finds them (installed, or in its working directory)"
)

IDLE_SECONDS = 600.0
"""After this time without a unit a worker frees the teacher, since the command may have been killed."""


@dataclass(frozen=True)
class Assignment:
    """Holds what the units of one cache have in common. It is small, since it is sent with each unit.

    Args:
        name: of the cache.
        layout: of the cache.
        place: takes the files of units.
        identity: what must be the same in every process (`worker_identity`).
    """

    name: str
    layout: StoreLayout
    place: Place
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerInfo:
    """Describes a worker in receipts and errors.

    Args:
        host: the name of its machine.
        device: what it computes on.
        versions: of Python and packages.
    """

    host: str
    device: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Receipt:
    """Confirms that a worker has written a unit.

    Args:
        attempt: under which name the files lie.
        files: the CRC-32C of each.
        seconds: of computing and writing; of units that were filled together, each has an equal part.
        info: describes the worker.
        worker: its address in the cluster.
    """

    unit: Unit
    attempt: str
    files: Mapping[str, int]
    seconds: float
    info: WorkerInfo
    worker: str = ""


def worker_identity(teacher: TeacherPass) -> dict[str, Any]:
    """Return what must be the same in all workers of a cache, as plain values.

    Args:
        teacher: opened in this process.

    Of the pixels, a digest of some samples is compared.
    """
    samples, view = teacher.samples, teacher.views.numbers[0]
    network = TeacherIdentity.of(teacher.network, precision=teacher.precision, micro_batch=teacher.micro_batch)
    some = np.unique(np.linspace(0, samples.count - 1, COMPARED).astype(np.int64))
    digests = [teacher.render(view, range(sample, sample + 1), size=1).digests for sample in some.tolist()]
    return {
        "version": {"decant-kd": versions().get("decant-kd"), "schema": SCHEMA},
        "data": {
            "samples": int(samples.count),
            "ids": samples.ids_digest(),
            "pixels of some": hashlib.sha256(np.concatenate(digests).astype("<u8").tobytes()).hexdigest(),
        },
        "views": ViewsIdentity.of(teacher.views).plain(),
        "teacher": network.plain(),
        "signals": teacher.config.model_dump(mode="json"),
    }


class UnitComputer:
    """Computes units in several threads: the teacher computes one while others are rendered or written.

    Args:
        open_teacher: called when the first unit is computed.
    """

    def __init__(self, open_teacher: Open) -> None:
        self._open = open_teacher
        self._opening, self._inferring, self._units = Lock(), Lock(), Semaphore(UNITS_AT_ONCE)
        self._closed = Event()
        self._teachers: Mapping[str, TeacherPass] | None = None
        self._checked: set[str] = set()
        self._counting, self._running = Lock(), 0
        self._idle: Timer | None = None

    def __reduce__(self) -> tuple[type[UnitComputer], tuple[Open]]:
        """Pickle only the function that opens the teacher."""
        return UnitComputer, (self._open,)

    def __call__(self, assigned: bytes, block: int, views: Sequence[int], worker: str = "") -> tuple[Receipt, ...]:
        """Compute units, write them under a name that no other attempt has, and return the receipt of each.

        assigned: a pickled `Assignment`, so that a scheduler need not import it. block, views: of the units, which are
        filled together, so that images are read once. worker: the address of this worker. Raises CacheError, and the
        errors of opening the teacher.
        """
        assignment: Assignment = pickle.loads(assigned)
        units, attempt = [Unit(view, block) for view in views], uuid4().hex
        with self._units, self._count_running():
            teacher = self._teacher(assignment)
            info = WorkerInfo(socket.gethostname(), device_name(teacher.device), versions())
            start, lock = time.perf_counter(), _TeacherLock(teacher, self._inferring)
            # All are computed before the first one is written: another task has the teacher meanwhile.
            computed = dict(compute_units(teacher, assignment.layout, [units], _Cancellable(self._closed), lock))
            files = {unit: assignment.place.write(computed.pop(unit), attempt) for unit in units}
        seconds = (time.perf_counter() - start - lock.waited) / len(units)
        return tuple(Receipt(unit, attempt, files[unit], seconds, info, worker) for unit in units)

    def close(self) -> None:
        """Stop after the current micro-batch, and free the teacher."""
        self._closed.set()
        Thread(target=self._free, daemon=True).start()  # the event loop must not wait

    def _teacher(self, assignment: Assignment) -> TeacherPass:
        """Return the teacher for a cache, opened, and compared with that of the process that commits."""
        with self._opening:
            if self._closed.is_set():
                raise _command_over()
            if self._teachers is None:
                try:
                    self._teachers = self._open()
                except (PipelineError, OSError) as error:
                    raise CacheError(
                        f"a worker on {socket.gethostname()} cannot open the teacher or its data",
                        got=error,
                        fix=SAME_EVERYWHERE_HINT,
                    ) from error
            teacher = self._teachers[assignment.name]
            if assignment.name not in self._checked:
                _require_same_inputs(teacher, assignment)
                self._checked.add(assignment.name)
            return teacher

    @contextmanager
    def _count_running(self) -> Iterator[None]:
        """Count the units that are computed. The teacher is freed some time after the last one."""
        with self._counting:
            self._running += 1
            if self._idle is not None:
                self._idle.cancel()
        try:
            yield
        finally:
            with self._counting:
                self._running -= 1
                if not self._running and not self._closed.is_set():
                    self._idle = Timer(IDLE_SECONDS, self._free)
                    self._idle.daemon = True
                    self._idle.start()
            if self._closed.is_set():
                self._free()

    def _free(self) -> None:
        with self._counting:
            if self._idle is not None:
                self._idle.cancel()
            if self._running and not self._closed.is_set():
                return  # a unit has come meanwhile
        if self._teachers is None:
            return
        self._teachers = None
        gc.collect()  # networks have cycles
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


class _TeacherLock(AbstractContextManager[None]):
    """Lets one thread at a time use the teacher. waited: seconds until this thread got it."""

    def __init__(self, teacher: TeacherPass, inferring: Lock) -> None:
        self._teacher, self._inferring = teacher, inferring
        self._stack = ExitStack()
        self.waited = 0.0

    def __enter__(self) -> None:
        """Take the teacher, and enter its inference mode in this thread: modes of torch belong to threads."""
        start = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(self._inferring)
            self.waited = time.perf_counter() - start
            stack.enter_context(self._teacher.inference_mode())
            self._stack = stack.pop_all()

    def __exit__(self, *error: object) -> None:
        """Release the teacher for the next thread."""
        self._stack.close()


class _Cancellable(Silent):
    """Interrupts the computation of a unit when its command is over."""

    def __init__(self, closed: Event) -> None:
        self._closed = closed

    def advance(self, amount: int, note: str = "") -> None:
        """Stop with CacheError if the command is over. It is called between two micro-batches.

        Args:
            amount, note: have no effect.
        """
        if self._closed.is_set():
            raise _command_over()


def _command_over() -> CacheError:
    return CacheError("the command that needed this unit is over")


def _require_same_inputs(teacher: TeacherPass, assignment: Assignment) -> None:
    """Raise CacheError if this process has another teacher or other data than the one that commits."""
    if different := differences(assignment.identity, worker_identity(teacher)):
        raise CacheError(
            f"a worker on {socket.gethostname()} does not see what this process sees",
            where=f"the {assignment.name} cache",
            got="\n    ".join(different),
            fix=SAME_EVERYWHERE_HINT,
        )
    try:
        assignment.place.write({}, uuid4().hex)
    except (PipelineError, OSError) as error:
        raise CacheError(
            f"a worker on {socket.gethostname()} cannot write to the cache",
            got=error,
            fix="put the store on a file system that all workers share, at the same path",
        ) from error
