"""Batches: which samples and which view at every step, rendered, with what the teacher said of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data import Images, Samples
from pipeline.training.answers import Answers, AnswerSource
from pipeline.training.config import TrainConfig
from pipeline.views import Views, sizes_of

WINDOW_BLOCKS = 16
"""Row blocks shuffled together: larger stores are read window by window, so that reads stay local."""


class Drawn:
    """Fresh parameters and no answers: training on labels alone, a new view every epoch."""

    def __init__(self, views: Views, samples: Samples) -> None:
        self.views, self.samples = views, samples

    def parameters(self, view: int, samples: NDArray[np.int64], images: Images) -> NDArray[np.int32]:
        """Drawn for the samples' positions in their split, and the sizes of their images where they matter."""
        sizes = sizes_of(images) if self.views.needs_sizes else None
        return self.views.parameters(view, self.samples.positions[samples], sizes)

    def answers(self, view: int, samples: NDArray[np.int64], images: Tensor) -> Answers | None:
        """None."""
        return None


@dataclass
class Step:
    """One batch. images: uint8 [B, C, H, W]; labels, sample, view: int64 [B]; answers: the teacher's, or None."""

    index: int
    images: Tensor
    labels: Tensor
    sample: Tensor
    view: Tensor
    answers: Answers | None

    def to(self, device: torch.device) -> Step:
        """The same batch on a device."""
        if device.type == "cpu":
            return self
        return Step(
            self.index,
            self.images.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            self.sample.to(device, non_blocking=True),
            self.view.to(device, non_blocking=True),
            self.answers.to(device) if self.answers else None,
        )

    def pin_memory(self) -> Step:
        """Called by DataLoader before batches cross to an accelerator."""
        self.images = self.images.pin_memory()
        self.answers = self.answers.pin_memory() if self.answers else None
        return self


def order(seed: int, epoch: int, count: int, rows_per_block: int) -> NDArray[np.int64]:
    """The order of an epoch's samples: a permutation of 0..count-1, a function of its arguments alone.

    Row blocks are shuffled, and samples within windows of `WINDOW_BLOCKS` blocks: a store of that size or less
    is shuffled completely.
    """
    random = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)))
    blocks = -(-count // rows_per_block)
    if blocks <= WINDOW_BLOCKS:
        return random.permutation(count)
    shuffled = random.permutation(blocks)
    windows = [shuffled[i : i + WINDOW_BLOCKS] for i in range(0, blocks, WINDOW_BLOCKS)]
    parts = []
    for window in windows:
        rows = np.concatenate([np.arange(b * rows_per_block, min((b + 1) * rows_per_block, count)) for b in window])
        parts.append(random.permutation(rows))
    return np.concatenate(parts)


class Steps(Dataset[Step]):
    """Every step of a run by its number: epoch = step // steps_per_epoch. Nothing depends on earlier steps.

    numbers: the view numbers that epochs go through. rows_per_block: the store's, for the order of reads.
    """

    def __init__(
        self,
        samples: Samples,
        views: Views,
        source: AnswerSource,
        numbers: Sequence[int],
        config: TrainConfig,
        seed: int,
        rows_per_block: int,
    ) -> None:
        self.samples, self.views, self.source, self.numbers = samples, views, source, numbers
        self.config, self.seed, self.rows_per_block = config, seed, rows_per_block
        self.steps_per_epoch = -(-samples.count // config.batch_size)
        self.resident = samples.resident(int(config.resident_gigabytes * 2**30))
        labels = samples.labels
        self.labels = np.full(samples.count, -1, np.int64) if labels is None else labels
        self._epoch = -1
        self._batches: list[NDArray[np.int64]] = []

    def __len__(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    def view_of(self, epoch: int) -> int:
        """The view number of an epoch."""
        return self.numbers[(epoch + self.config.view_offset) % len(self.numbers)]

    def __getitem__(self, index: int) -> Step:
        epoch, within = divmod(index, self.steps_per_epoch)
        if epoch != self._epoch:
            shuffled = order(self.seed, epoch, self.samples.count, self.rows_per_block)
            self._batches = np.array_split(shuffled, self.steps_per_epoch)
            self._epoch = epoch
        rows = self._batches[within]
        view = self.view_of(epoch)
        images = self.render(view, rows)
        return Step(
            index,
            images,
            torch.from_numpy(self.labels[rows]),
            torch.from_numpy(rows),
            torch.full((len(rows),), view),
            self.source.answers(view, rows, images),
        )

    def render(self, view: int, rows: NDArray[np.int64]) -> Tensor:
        """The pixels of a view of samples, uint8 [B, C, H, W]."""
        images = self.samples.read(rows) if self.resident is None else self.resident[torch.from_numpy(rows)]
        return self.views.apply(images, self.source.parameters(view, rows, images))


def loader(steps: Steps, start: int, device: torch.device) -> Iterator[Step]:
    """The steps from `start` on: rendered in process where images are resident, else by worker processes."""
    workers = steps.config.workers
    if workers is None:
        workers = 0 if steps.resident is not None else max(1, (os.cpu_count() or 2) - 1)
    batches: DataLoader[Step] = DataLoader(
        steps,
        batch_size=None,
        sampler=range(start, len(steps)),
        num_workers=workers,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if workers else None,
    )
    return iter(batches)
