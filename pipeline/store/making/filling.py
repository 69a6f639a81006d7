"""Computes units: asks the teacher, micro-batch by micro-batch, and puts what it says in its place."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CacheError
from pipeline.progress import Progress
from pipeline.store.encodings import EncodingOverflow, name_of
from pipeline.store.format.arrays import SignalSpec, Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.store.making.teacher_pass import Answer, Rendered, TeacherPass
from pipeline.store.workspace import Chunks

RENDERED_AHEAD = 2
"""Micro-batches that are rendered while the teacher computes."""

NAMED_IDS = 8


class Task(NamedTuple):
    """A micro-batch: consecutive samples of a unit."""

    unit: Unit
    rows: range


def computed(
    teacher: TeacherPass,
    layout: StoreLayout,
    units: Iterable[Unit],
    progress: Progress,
    turn: AbstractContextManager[None] | None = None,
) -> Iterator[tuple[Unit, Chunks]]:
    """The chunks of units, one after the other; inside `teacher.inference_mode()`. Raises CacheError.

    One micro-batch is on the device while the one before it is checked, encoded and put in its place, and the next
    ones are rendered. turn: held from the first question to the last, for those who share the teacher.
    """
    filling, names, numbers = Filling(teacher, layout), [spec.name for spec in layout.signals], teacher.views.numbers
    pending: tuple[Task, Rendered, Answer] | None = None
    with ThreadPoolExecutor(1, thread_name_prefix="render") as pool, ExitStack() as asking:
        tasks = tasks_of(layout, units, teacher.micro_batch)
        ahead = rendered_ahead(pool, lambda task: teacher.render(numbers[task.unit.view], task.rows), tasks)
        for task, rendered in ahead:
            if pending is None and turn is not None:
                asking.enter_context(turn)
            answer = teacher.ask(rendered, names)
            if pending:
                yield from filling.take(*pending)
                progress.advance(len(pending[0].rows))
            pending = (task, rendered, answer)
        asking.close()
        if pending:
            yield from filling.take(*pending)
            progress.advance(len(pending[0].rows))


class Filling:
    """Puts answers into units. Units are computed one after the other, their micro-batches in order."""

    def __init__(self, teacher: TeacherPass, layout: StoreLayout) -> None:
        self._teacher, self._plan = teacher, layout
        self._arrays: dict[str, NDArray[Any]] = {}

    def take(self, task: Task, rendered: Rendered, answer: Answer) -> Iterator[tuple[Unit, Chunks]]:
        """Put one micro-batch in its place; yields its unit if that is full now. Raises CacheError."""
        block = self._plan.block_of(task.unit)
        if task.rows.start == block.start:
            self._arrays = self._plan.new_unit(task.unit)
        place = slice(task.rows.start - block.start, task.rows.stop - block.start)
        values = answer.arrays()
        for spec in self._plan.signals:
            for part, encoded in self._encoded(spec, values[spec.name], task).items():
                self._arrays[spec.arrays[part]][place] = encoded
        if self._plan.parameters:
            self._arrays["view_parameters"][place] = rendered.parameters
        self._arrays["view_digest"][place] = rendered.digests
        if task.rows.stop == block.stop:
            specs, arrays = self._plan.arrays, self._arrays
            self._arrays = {}
            yield task.unit, {specs[name].file(task.unit): array for name, array in arrays.items()}

    def _encoded(self, spec: SignalSpec, values: NDArray[np.float32], task: Task) -> dict[str, NDArray[Any]]:
        finite = np.isfinite(values)
        if not finite.all():
            rows = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
            raise self._refused(
                f"the teacher's {spec.name} is not finite",
                task,
                rows,
                fix="look at these samples and the teacher's weights, or set teacher.precision: float32",
            )
        try:
            return spec.codec.encode(values)
        except EncodingOverflow as error:
            raise self._refused(
                f"the teacher's {spec.name} exceeds {error.limit:g}, the most that {name_of(spec.encoding)} holds",
                task,
                error.rows,
                fix=f"set {_key_of(spec.name)}: float32",
            ) from None

    def _refused(self, what: str, task: Task, rows: NDArray[np.intp], fix: str) -> CacheError:
        samples = self._teacher.samples
        named = samples.ids(task.rows.start + rows[:NAMED_IDS])
        more = f" and {len(rows) - NAMED_IDS} more" if len(rows) > NAMED_IDS else ""
        view = self._teacher.views.numbers[task.unit.view]
        return CacheError(what, where=f"view {view} of samples {', '.join(named)}{more}", fix=fix)


def _key_of(signal: str) -> str:
    """Where the configuration says how a signal is written."""
    kind, _, name = signal.partition("/")
    return f"the encoding of {name} in signals.extras" if kind == "extras" else f"signals.{kind}.encoding"


def tasks_of(layout: StoreLayout, units: Iterable[Unit], micro_batch: int) -> Iterator[Task]:
    """The micro-batches of units, counted from the start of each."""
    for unit in units:
        block = layout.block_of(unit)
        for start in range(block.start, block.stop, micro_batch):
            yield Task(unit, range(start, min(start + micro_batch, block.stop)))


def rendered_ahead(
    pool: ThreadPoolExecutor, render: Callable[[Task], Rendered], tasks: Iterable[Task]
) -> Iterator[tuple[Task, Rendered]]:
    """Tasks with what was rendered for them, a few ahead of the caller."""
    waiting: deque[tuple[Task, Future[Rendered]]] = deque()
    for task in tasks:
        waiting.append((task, pool.submit(render, task)))
        if len(waiting) > RENDERED_AHEAD:
            done, future = waiting.popleft()
            yield done, future.result()
    for done, future in waiting:
        yield done, future.result()
