"""Makes batches from what lies on the device: images, labels, and what is stored of the views of an epoch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import during
from pipeline.objectives import Batch, MixedLabels
from pipeline.training.batches import Steps
from pipeline.training.encoded_outputs import TeacherOutputs, join_views, with_tensors
from pipeline.training.fresh_views import FreshViews
from pipeline.training.renderer import require_same_pixels
from pipeline.training.room import fits
from pipeline.training.step import Step
from pipeline.training.teacher_outputs import FromCaches
from pipeline.training.whole_view import Placing, WholeView, bytes_of_row, read_whole
from pipeline.views import view_of

ViewNumbers = tuple[int, ...]
"""The numbers of the views of an epoch."""


def resident_steps(steps: Steps, start: int, device: torch.device) -> Iterator[Step] | None:
    """Return an iterator over the steps of a run, made on the device; None where that cannot be.

    Args:
        steps: of the run.
        start: the number of the first.
        device: of the training.

    It can be where one process trains, all images are in memory, the device renders views as a CPU does, what the
    teacher said is in folders of this machine, and the views of two epochs have room. Raises CacheMismatch for a device
    that renders other pixels than a CPU.
    """
    stored = isinstance(steps.source, FromCaches | FreshViews) and not steps.source.remote
    shared = steps.share.size > 1  # whole batches are made here
    if shared or device.type not in ("cpu", "cuda") or steps.resident is None or not stored or start >= len(steps):
        return None
    if device.type != "cpu" and not steps.views.exact:
        return None
    try:
        if not fits(_bytes(steps, start, device), device):
            return None
    except (Exception, SystemExit):
        return None  # what cannot be read is said where its turn comes
    view = steps.views_of(start // steps.steps_per_epoch)[0]
    if device.type != "cpu" and not require_same_pixels(steps, view, device):
        return None
    return ResidentEpochs(steps, device).steps_from(start)


def _bytes(steps: Steps, start: int, device: torch.device) -> int:
    """The bytes that a run takes of the device beside its network."""
    epochs = range(start // steps.steps_per_epoch, steps.config.epochs)
    epochs = epochs[: len(steps.numbers) + 1]  # from there on all views were there
    several = len({tuple(steps.views_of(epoch)) for epoch in epochs}) > 1
    views = steps.config.views_per_step * (2 if several else 1)
    assert steps.resident is not None
    images = steps.resident.nbytes if device.type != "cpu" else 0
    return images + steps.samples.count * (views * bytes_of_row(steps, steps.views_of(epochs[0])[0]) + 3 * 8)


class ResidentEpochs:
    """Holds what the steps of an epoch are made of, and reads ahead what the next one needs.

    Args:
        steps: of the run, whose images are in memory.
        device: of the training.
    """

    def __init__(self, steps: Steps, device: torch.device) -> None:
        self.of, self.device = steps, device
        self.placing = Placing(device)
        assert steps.resident is not None
        self.images = steps.resident.to(self.placing.device)  # once: memory of the host need not be locked for it
        self.labels = self.placing.placed(torch.from_numpy(steps.labels))
        self.views: dict[ViewNumbers, list[WholeView]] = {}

    def steps_from(self, start: int) -> Iterator[Step]:
        """Yield the steps from number `start` on; those of an epoch that cannot be read so as `of` has them."""
        of, stop = self.of, threading.Event()
        with ThreadPoolExecutor(1, thread_name_prefix="next-epoch") as pool:
            try:
                waiting: Future[list[WholeView]] | None = None
                for epoch in range(start // of.steps_per_epoch, of.config.epochs):
                    numbers = tuple(of.views_of(epoch))
                    if waiting is None and numbers not in self.views:
                        waiting = pool.submit(self._read, numbers, stop)
                    views = self._arrived(numbers, waiting)
                    waiting = self._ahead(pool, epoch, stop)
                    first = max(start, epoch * of.steps_per_epoch)
                    indices = range(first, (epoch + 1) * of.steps_per_epoch)
                    yield from (of[index] for index in indices) if views is None else self._epoch(views, indices)
                    del views
            finally:
                stop.set()

    def _arrived(self, numbers: ViewNumbers, waiting: Future[list[WholeView]] | None) -> list[WholeView] | None:
        """Return the views of an epoch; None if they could not be read."""
        if numbers not in self.views:
            assert waiting is not None
            try:
                self.views[numbers] = waiting.result()
            except (Exception, SystemExit):
                return None
        return self.views[numbers]

    def _ahead(self, pool: ThreadPoolExecutor, epoch: int, stop: threading.Event) -> Future[list[WholeView]] | None:
        """Begin to read the views of the epoch after this one, in place of those before it; None if they are there."""
        if epoch + 1 == self.of.config.epochs or (numbers := tuple(self.of.views_of(epoch + 1))) in self.views:
            return None
        self.placing.wait()  # for what still reads the memory that is freed now
        now = tuple(self.of.views_of(epoch))
        for old in [each for each in self.views if each != now]:
            del self.views[old]
        return pool.submit(self._read, numbers, stop)

    def _read(self, numbers: ViewNumbers, stop: threading.Event) -> list[WholeView]:
        with self.placing.apart():
            return [read_whole(self.of, number, self.placing, stop) for number in numbers]

    def _epoch(self, views: list[WholeView], indices: range) -> Iterator[Step]:
        of, epoch = self.of, indices[0] // self.of.steps_per_epoch
        order = self.placing.placed(torch.from_numpy(of.order_of(epoch)))
        numbers = self.placing.placed(torch.tensor(of.views_of(epoch)))
        for index in indices:
            _, rows = of.read_by(index)
            first = of.start_of(index - epoch * of.steps_per_epoch)
            yield self.step(index, views, rows, order[first : first + len(rows)], numbers)

    def step(self, index: int, views: list[WholeView], rows: NDArray[np.int64], there: Tensor, numbers: Tensor) -> Step:
        """Make a step on the device, which copies nothing from here and waits for nothing.

        Args:
            index: the number of the step.
            views: of its epoch.
            rows, there: its samples [B], on the CPU and on the device.
            numbers: of the views, on the device.
        """
        images, each = self.images[there], len(views)
        outputs = [_rows(view.outputs, there) for view in views if view.outputs is not None]
        rendered = [self._rendered(view, images, rows, there) for view in views]
        return Step(
            index,
            rendered[0] if each == 1 else torch.stack(rendered, 1).flatten(0, 1),
            _repeated(self.labels[there], each),
            _repeated(there, each),
            numbers.repeat(len(rows)),
            join_views(outputs) if outputs else None,
            _mixed([view.mixed for view in views], there),
            None if self.device.type == "cpu" else self._host(index, views, rows),
        )

    def _rendered(self, view: WholeView, images: Tensor, rows: NDArray[np.int64], there: Tensor) -> Tensor:
        partners = None if view.partners is None else self.images[view.partners[there]]
        with during(lambda: view_of(self.of.samples, view.number, rows)):
            return self.of.views.apply(images, view.parameters[there], partners)

    def _host(self, index: int, views: list[WholeView], rows: NDArray[np.int64]) -> Batch:
        """Return what objectives are given of a batch besides signals, on the CPU."""
        here, each = torch.from_numpy(rows), len(views)
        labels = _repeated(torch.from_numpy(self.of.labels[rows]), each)
        numbers = torch.tensor([view.number for view in views]).repeat(len(rows))
        return Batch(labels, _repeated(here, each), numbers, index, _mixed([view.mixed_here for view in views], here))


def _rows(outputs: TeacherOutputs, rows: Tensor) -> TeacherOutputs:
    return with_tensors(outputs, lambda each: each[rows])


def _repeated(each: Tensor, times: int) -> Tensor:
    return each if times == 1 else each[:, None].expand(-1, times).reshape(-1)


def _mixed(views: list[MixedLabels | None], rows: Tensor) -> MixedLabels | None:
    """Return the labels and shares of samples in several views, those of a sample in adjacent rows."""
    every = [each.map(lambda tensor: tensor[rows]) for each in views if each is not None]
    if not every:
        return None
    labels, shares = ([each.labels for each in every], [each.share for each in every])
    return MixedLabels(torch.stack(labels, 1).reshape(-1), torch.stack(shares, 1).reshape(-1))
