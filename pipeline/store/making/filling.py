"""Computes units: runs the teacher micro-batch by micro-batch, and encodes its outputs into the arrays of a unit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.ahead import computed_ahead
from pipeline.errors import CacheError, during
from pipeline.progress import Progress
from pipeline.store.encodings import EncodingOverflow, name_of
from pipeline.store.format.arrays import MicroBatch, SignalSpec, Unit
from pipeline.store.format.layout import StoreLayout
from pipeline.store.making.shared_images import SharedImages
from pipeline.store.making.teacher_pass import PendingOutputs, Rendered, TeacherPass
from pipeline.store.workspace import Chunks
from pipeline.views import view_of

RENDERED_AHEAD = 2
"""Micro-batches that are rendered while the teacher computes."""

NAMED_IDS = 8
"""Ids of samples that an error names."""


def compute_units(
    teacher: TeacherPass,
    layout: StoreLayout,
    groups: Iterable[Sequence[Unit]],
    progress: Progress,
    teacher_lock: AbstractContextManager[None] | None = None,
) -> Iterator[tuple[Unit, Chunks]]:
    """Compute the chunks of units, and yield each with its unit.

    One micro-batch is on the device while the one before it is checked and encoded, and the next ones are rendered.

    Args:
        teacher: runs the network; its `inference_mode` must be entered, by the caller or by `teacher_lock`.
        layout: of the cache.
        groups: units of one row block each, in the order in which they are computed. Those of a group are filled
            together, and the images of their row block are read once; several groups are computed one after the other.
        progress: advances by views.
        teacher_lock: is held from the first micro-batch to the last, where several threads share the teacher.

    Raises CacheError for outputs that are not finite or do not fit their encoding.
    """
    filler, names, numbers = UnitFiller(teacher, layout), [spec.name for spec in layout.signals], teacher.views.numbers
    images = SharedImages(teacher.samples)

    def render(batch: MicroBatch) -> Rendered:
        view = numbers[batch.unit.view]
        return teacher.render(view, batch.rows, images=images.of(batch.rows, view))

    pending: tuple[MicroBatch, Rendered, PendingOutputs] | None = None
    batches = micro_batches_of(layout, groups, teacher.micro_batch)
    with ThreadPoolExecutor(1, thread_name_prefix="render") as pool, ExitStack() as locked:
        for batch, rendered in computed_ahead(pool, render, batches, RENDERED_AHEAD):
            if pending is None and teacher_lock is not None:
                locked.enter_context(teacher_lock)
            with during(lambda batch=batch: _named(teacher, batch)):  # type: ignore[misc]
                outputs = teacher.infer(rendered, names)
            if pending:
                yield from filler.add(*pending)
                progress.advance(len(pending[0].rows))
            pending = (batch, rendered, outputs)
        locked.close()
        if pending:
            yield from filler.add(*pending)
            progress.advance(len(pending[0].rows))


class UnitFiller:
    """Encodes the outputs of micro-batches into the arrays of units.

    Several units may be filled at once; the micro-batches of each come in order.

    Args:
        teacher: names samples and views in errors.
        layout: of the cache.
    """

    def __init__(self, teacher: TeacherPass, layout: StoreLayout) -> None:
        self._teacher, self._layout = teacher, layout
        self._filled: dict[Unit, dict[str, NDArray[Any]]] = {}

    def add(self, batch: MicroBatch, rendered: Rendered, outputs: PendingOutputs) -> Iterator[tuple[Unit, Chunks]]:
        """Add a micro-batch; yield its unit with the chunks if that is full now.

        Args:
            rendered: the views.
            outputs: the teacher's, for these views.

        Raises CacheError for outputs that are not finite or do not fit their encoding.
        """
        block = self._layout.block_of(batch.unit)
        if batch.rows.start == block.start:
            self._filled[batch.unit] = self._layout.new_unit(batch.unit)
        arrays = self._filled[batch.unit]
        place = slice(batch.rows.start - block.start, batch.rows.stop - block.start)
        values = outputs.arrays()
        for spec in self._layout.signals:
            for part, encoded in self._encoded(spec, values[spec.name], batch).items():
                arrays[spec.arrays[part]][place] = encoded
        if self._layout.parameters:
            arrays["view_parameters"][place] = rendered.parameters
        arrays["view_digest"][place] = rendered.digests
        if batch.rows.stop == block.stop:
            specs = self._layout.arrays
            del self._filled[batch.unit]
            yield batch.unit, {specs[name].file(batch.unit): array for name, array in arrays.items()}

    def _encoded(self, spec: SignalSpec, values: NDArray[np.float32], batch: MicroBatch) -> dict[str, NDArray[Any]]:
        finite = np.isfinite(values)
        if not finite.all():
            rows = np.flatnonzero(~finite.reshape(len(values), -1).all(axis=1))
            raise self._refused(
                f"the teacher's {spec.name} is not finite",
                batch,
                rows,
                fix="look at these samples and the teacher's weights, or set teacher.precision: float32",
            )
        try:
            with during(lambda: f"encoding {name_of(spec.encoding)}, {_named(self._teacher, batch)}"):
                return spec.codec.encode(values)
        except EncodingOverflow as error:
            raise self._refused(
                f"the teacher's {spec.name} exceeds {error.limit:g}, the most that {name_of(spec.encoding)} holds",
                batch,
                error.rows,
                fix=f"set {_key_of(spec.name)}: float32",
            ) from None

    def _refused(self, what: str, batch: MicroBatch, rows: NDArray[np.intp], fix: str) -> CacheError:
        samples = self._teacher.samples
        named = samples.ids(batch.rows.start + rows[:NAMED_IDS])
        more = f" and {len(rows) - NAMED_IDS} more" if len(rows) > NAMED_IDS else ""
        view = self._teacher.views.numbers[batch.unit.view]
        return CacheError(what, where=f"view {view} of samples {', '.join(named)}{more}", fix=fix)


def _named(teacher: TeacherPass, batch: MicroBatch) -> str:
    return view_of(teacher.samples, teacher.views.numbers[batch.unit.view], np.array(batch.rows))


def _key_of(signal: str) -> str:
    """Return the key of the configuration for the encoding of a signal."""
    kind, _, name = signal.partition("/")
    return f"the encoding of {name} in signals.extras" if kind == "extras" else f"signals.{kind}.encoding"


def micro_batches_of(layout: StoreLayout, groups: Iterable[Sequence[Unit]], micro_batch: int) -> Iterator[MicroBatch]:
    """Yield the micro-batches of each group: those of the same samples in all of its units, then those of the next.

    Args:
        groups: views of one row block each.
        layout: of the cache.
        micro_batch: samples in each; the last one of a unit may have fewer.
    """
    for units in groups:
        block = layout.block_of(units[0])
        for start in range(block.start, block.stop, micro_batch):
            for unit in units:
                yield MicroBatch(unit, range(start, min(start + micro_batch, block.stop)))
