"""What a worker of a cluster does: opens the teacher once, computes units, writes them and hands in receipts."""

from __future__ import annotations

import gc
import hashlib
import pickle
import socket
import time
from collections.abc import Callable, Iterator, Mapping
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
from pipeline.store.making.filling import computed
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.store.workspace import Place

Open = Callable[[], Mapping[str, TeacherPass]]
"""Opens the teacher for every cache of a command, by the cache's name; pickles."""

COMPARED = 64
"""Samples that a worker renders to see whether it has the same pixels as the process that commits."""

UNITS_AT_ONCE = 3
"""In one worker: one that is rendered, one that the teacher looks at, one that is written. They bound its memory."""

SAME_EVERYWHERE_HINT = "give every worker the data and the weights at the same paths, and the same version of Decant"

IDLE_SECONDS = 600.0
"""A worker that is asked for nothing any more lets go of the teacher: the command may have been killed."""


@dataclass(frozen=True)
class Assignment:
    """What the units of one cache have in common; small, for it travels with each of them.

    name: of the cache. seen: what every process must see (`worker_identity`).
    """

    name: str
    layout: StoreLayout
    place: Place
    seen: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerInfo:
    """A worker, as receipts and errors name it."""

    host: str
    device: str
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Receipt:
    """What a worker hands in for a unit that it has written. files: CRC-32C. seconds: computing and writing.

    worker: its address in the cluster.
    """

    unit: Unit
    attempt: str
    files: Mapping[str, int]
    seconds: float
    hand: WorkerInfo
    worker: str = ""


def worker_identity(teacher: TeacherPass) -> dict[str, Any]:
    """Return what must be the same for all workers of a cache; of pixels, a digest of some samples."""
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
    """Computes units in any number of threads: the teacher looks at one, while others are rendered or written.

    Called with an assignment and a unit it returns the receipt. Raises CacheError, and whatever opening raises.
    """

    def __init__(self, open_teacher: Open) -> None:
        """Nothing is opened yet."""
        self._open = open_teacher
        self._opening, self._looking, self._units = Lock(), Lock(), Semaphore(UNITS_AT_ONCE)
        self._closed = Event()
        self._teachers: Mapping[str, TeacherPass] | None = None
        self._checked: set[str] = set()
        self._counting, self._in_hand = Lock(), 0
        self._idle: Timer | None = None

    def __reduce__(self) -> tuple[type[UnitComputer], tuple[Open]]:
        """Pickles as what opens the teacher."""
        return UnitComputer, (self._open,)

    def __call__(self, assigned: bytes, view: int, block: int, worker: str = "") -> Receipt:
        """Compute a unit and write it under a name that nothing else has or will have.

        assigned: a pickled `Assignment`, which schedulers thus need not understand. worker: the address of this one.
        """
        assignment: Assignment = pickle.loads(assigned)
        unit, attempt = Unit(view, block), uuid4().hex
        with self._units, self._one_in_hand():
            teacher = self._teacher(assignment)
            hand = WorkerInfo(socket.gethostname(), device_name(teacher.device), versions())
            start, turn = time.perf_counter(), _TeacherLock(teacher, self._looking)
            ((_, chunks),) = computed(teacher, assignment.layout, [unit], _Cancellable(self._closed), turn)
            files = assignment.place.write(chunks, attempt)
        return Receipt(unit, attempt, files, time.perf_counter() - start - turn.waited, hand, worker)

    def close(self) -> None:
        """Give up after the micro-batch in hand."""
        self._closed.set()
        Thread(target=self._let_go, daemon=True).start()  # the event loop must not wait

    def _teacher(self, assignment: Assignment) -> TeacherPass:
        """The teacher for a cache, opened and compared with what the process that commits sees."""
        with self._opening:
            if self._closed.is_set():
                raise _given_up()
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
                _check(teacher, assignment)
                self._checked.add(assignment.name)
            return teacher

    @contextmanager
    def _one_in_hand(self) -> Iterator[None]:
        """Counts the units in hand. After the last, the next is waited for, but not for ever."""
        with self._counting:
            self._in_hand += 1
            if self._idle is not None:
                self._idle.cancel()
        try:
            yield
        finally:
            with self._counting:
                self._in_hand -= 1
                if not self._in_hand and not self._closed.is_set():
                    self._idle = Timer(IDLE_SECONDS, self._let_go)
                    self._idle.daemon = True
                    self._idle.start()
            if self._closed.is_set():
                self._let_go()

    def _let_go(self) -> None:
        with self._counting:
            if self._idle is not None:
                self._idle.cancel()
            if self._in_hand and not self._closed.is_set():
                return  # a unit came at this moment
        self._teachers = None
        gc.collect()  # networks have cycles
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()


class _TeacherLock(AbstractContextManager[None]):
    """The time in which the teacher looks at one unit alone. waited: seconds that it took to come."""

    def __init__(self, teacher: TeacherPass, looking: Lock) -> None:
        self._teacher, self._looking = teacher, looking
        self._stack = ExitStack()
        self.waited = 0.0

    def __enter__(self) -> None:
        """In the thread that asks: modes of torch belong to threads."""
        start = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(self._looking)
            self.waited = time.perf_counter() - start
            stack.enter_context(self._teacher.inference_mode())
            self._stack = stack.pop_all()

    def __exit__(self, *error: object) -> None:
        """Let the next one compute."""
        self._stack.close()


class _Cancellable(Silent):
    """Interrupts the computation of a unit that nobody waits for any more."""

    def __init__(self, closed: Event) -> None:
        self._closed = closed

    def advance(self, amount: int, note: str = "") -> None:
        """Between two micro-batches."""
        if self._closed.is_set():
            raise _given_up()


def _given_up() -> CacheError:
    return CacheError("the command that asked for this unit is over")


def _check(teacher: TeacherPass, assignment: Assignment) -> None:
    """Raise CacheError if this process does not see what the one that commits sees."""
    if different := differences(assignment.seen, worker_identity(teacher)):
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
