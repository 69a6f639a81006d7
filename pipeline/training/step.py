"""Holds the batch of one optimiser step, and computes its mean values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from pipeline.errors import TrainingError
from pipeline.objectives import Batch, MixedLabels, Terms
from pipeline.training.encoded_outputs import TeacherOutputs, select_rows
from pipeline.training.share import Share, even_sizes


@dataclass
class Step:
    """Holds the batch of one optimiser step. With several views per step, those of a sample are in adjacent rows.

    Args:
        index: the number of the step.
        images: uint8 [B, C, H, W]; of the share of this process alone, where several train together.
        labels: int64 [B], -1 for none.
        sample: the numbers of the samples, int64 [B].
        view: the numbers of their views, int64 [B].
        teacher_outputs: the teacher's outputs for these views as they are stored; None without a teacher.
        mixed: the labels of the samples that are mixed in, and the shares; None where views do not mix.
        host: what objectives are given of the batch besides signals, on the CPU; None where all of it lies there.
        share: of this process.
    """

    index: int
    images: Tensor
    labels: Tensor
    sample: Tensor
    view: Tensor
    teacher_outputs: TeacherOutputs | None
    mixed: MixedLabels | None = None
    host: Batch | None = None
    share: Share = field(default=Share())

    def to(self, device: torch.device | str) -> Step:
        """Return the batch on `device`; without a copy if that is the CPU, where it lies."""
        device = torch.device(device)
        if device.type == "cpu":
            return self
        return Step(
            self.index,
            self.images.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.sample.to(device, non_blocking=True),
            self.view.to(device, non_blocking=True),
            self.teacher_outputs.to(device) if self.teacher_outputs else None,
            self.mixed.map(lambda each: each.to(device, non_blocking=True)) if self.mixed else None,
            self.known() if self.sample.device.type == "cpu" else self.host,
            self.share,
        )

    def known(self) -> Batch:
        """Return what objectives are given of the batch besides signals."""
        return Batch(self.labels, self.sample, self.view, self.index, self.mixed, self.host)

    def parts(self, count: int, views: int) -> list[Step]:
        """Split the step into `count` batches whose sizes differ by one sample at most; fewer if samples are fewer.

        Args:
            views: rows of each sample, which stay together.
        """
        if count == 1:
            return [self]
        samples = len(self.sample) // views
        parts: list[Step] = []
        first = rendered = 0
        for size in even_sizes(samples, min(count, samples)):
            rows, own = size * views, len(self.share.of(size)) * views
            parts.append(self.rows(slice(first, first + rows), slice(rendered, rendered + own)))
            first, rendered = first + rows, rendered + own
        return parts

    def rows(self, rows: slice, rendered: slice | None = None) -> Step:
        """Return some rows of the batch.

        Args:
            rows: of what the batch holds.
            rendered: those of the images, if they are others: of a share.
        """
        outputs = select_rows(self.teacher_outputs, rows) if self.teacher_outputs else None
        mixed = self.mixed.map(lambda each: each[rows]) if self.mixed else None
        images = self.images[rows if rendered is None else rendered]
        labels, sample, view = (each[rows] for each in (self.labels, self.sample, self.view))
        host = self.host and self.host.map(lambda each: each[rows])
        return Step(self.index, images, labels, sample, view, outputs, mixed, host, self.share)

    def __getitem__(self, index: object) -> NoReturn:
        """Raise TrainingError: torch takes the first of a list here, where a DataLoader is given no `collate_fn`."""
        fix = "DataLoader(data, ..., collate_fn=data.collate), or data.loader(...)"
        raise TrainingError("a batch of a cache is no list of items, and is not to be collated again", fix=fix)

    def pin_memory(self) -> Step:
        """Move the batch to page-locked memory: `DataLoader` calls this before batches go to an accelerator."""
        self.images, self.labels = self.images.pin_memory(), self.labels.pin_memory()
        self.sample, self.view = self.sample.pin_memory(), self.view.pin_memory()
        self.mixed = self.mixed.map(Tensor.pin_memory) if self.mixed else None
        self.teacher_outputs = self.teacher_outputs.pin_memory() if self.teacher_outputs else None
        return self


def mean_terms(values: Sequence[tuple[Terms, float]]) -> Terms:
    """Return the values of a step from those of its batches, weighted by their shares.

    Args:
        values: of each batch, with its part of the samples of the step.
    """
    if len(values) == 1:
        return values[0][0]
    names = values[0][0].terms
    total = torch.stack([value.total * share for value, share in values]).sum()
    return Terms(total, {name: torch.stack([v.terms[name] * s for v, s in values]).sum() for name in names})
