"""Makes batches: which samples and which view in every step, rendered, with the teacher's signals for them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.data import Images, Samples
from pipeline.errors import ConfigError, Problem
from pipeline.training.answers import Answers, AnswerSource, Upcoming, adjacent, rows_of
from pipeline.training.config import TrainConfig
from pipeline.training.order import balanced, windows
from pipeline.views import Views, sizes_of

ENDLESS = range(2**31)
"""View numbers without a cache: every epoch has views of its own."""


class Drawn:
    """Draws new parameters in every epoch and has no teacher's signals: for training on labels alone."""

    def __init__(self, views: Views, samples: Samples) -> None:
        self.views, self.samples = views, samples

    @property
    def remote(self) -> bool:
        """Return False: nothing is fetched."""
        return False

    def expect(self, upcoming: Upcoming) -> None:
        """Do nothing: there is nothing to fetch."""

    def parameters(self, view: int, samples: NDArray[np.int64], images: Images) -> NDArray[np.int32]:
        """Draw them for the samples' positions in their split, and for the sizes of their images where they matter."""
        sizes = sizes_of(images) if self.views.needs_sizes else None
        return self.views.parameters(view, self.samples.positions[samples], sizes)

    def answers(self, view: int, samples: NDArray[np.int64], images: Tensor) -> Answers | None:
        """Return None: there is no teacher."""
        return None


@dataclass
class Step:
    """One batch. images: uint8 [B, C, H, W]; labels, sample, view: int64 [B]; answers: the teacher's, or None.

    With several views per step the views of a sample are in adjacent rows.
    """

    index: int
    images: Tensor
    labels: Tensor
    sample: Tensor
    view: Tensor
    answers: Answers | None

    def to(self, device: torch.device | str) -> Step:
        """Return the batch on a device."""
        device = torch.device(device)
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

    def parts(self, count: int, views: int) -> list[Step]:
        """Split the step into `count` batches, or as many as it has samples; they differ by one sample at most.

        views: of each sample, in adjacent rows, which stay together.
        """
        if count == 1:
            return [self]
        samples = len(self.sample) // views
        ends = [int(part[-1] + 1) * views for part in np.array_split(np.arange(samples), min(count, samples))]
        return [self._rows(slice(start, end)) for start, end in zip([0, *ends], ends, strict=False)]

    def _rows(self, rows: slice) -> Step:
        answers = rows_of(self.answers, rows) if self.answers else None
        return Step(self.index, self.images[rows], self.labels[rows], self.sample[rows], self.view[rows], answers)

    def pin_memory(self) -> Step:
        """Called by DataLoader before batches cross to an accelerator."""
        self.images = self.images.pin_memory()
        self.answers = self.answers.pin_memory() if self.answers else None
        return self


class RenderRequest(NamedTuple):
    """A step that a worker renders without asking the source: the process that trains has asked for its parameters.

    parameters: of every view of the step.
    """

    step: int
    parameters: list[NDArray[np.int32]]


class Steps(Dataset[Step]):
    """Every step of a run by its number: epoch = step // steps_per_epoch. Nothing depends on earlier steps.

    numbers: the view numbers that epochs go through. rows_per_block: the store's, for the order of reads. Raises
    ConfigError if there are fewer views than a step is to have of each sample, or no labels to balance classes by.
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
        refuse_too_many_views(config, len(numbers))
        config.refuse_without("train", labels=samples.labels is not None, holdout=True)
        self.steps_per_epoch = -(-samples.count // config.samples_per_step)
        self.rows_per_epoch = samples.count * config.views_per_step
        self.resident = samples.resident(int(config.resident_gigabytes * 2**30))
        labels = samples.labels
        self.labels = np.full(samples.count, -1, np.int64) if labels is None else labels
        self._orders: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._expected: tuple[int, int] | None = None

    @classmethod
    def fresh(cls, samples: Samples, views: Views, config: TrainConfig, seed: int) -> Steps:
        """Make steps on labels alone: views are drawn anew for every epoch, and there is no teacher."""
        return cls(samples, views, Drawn(views, samples), ENDLESS, config, seed, samples.count)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    def views_of(self, epoch: int) -> list[int]:
        """Return the view numbers of an epoch: as many different ones as a step has of each sample."""
        first = epoch * self.config.views_per_step + self.config.view_offset
        return [self.numbers[(first + i) % len(self.numbers)] for i in range(self.config.views_per_step)]

    def __getitem__(self, asked: int | RenderRequest) -> Step:
        index = asked.step if isinstance(asked, RenderRequest) else asked
        numbers, rows = self._read_by(index)
        images, answers = self._images(rows), None
        if isinstance(asked, RenderRequest):
            rendered = [self.views.apply(images, parameters) for parameters in asked.parameters]
        else:
            self.expect(index)
            rendered = [self._rendered(view, rows, images) for view in numbers]
            answers = self._answers(numbers, rows, rendered)
        return Step(
            index,
            rendered[0] if len(rendered) == 1 else torch.stack(rendered, 1).flatten(0, 1),
            torch.from_numpy(self.labels[rows].repeat(len(numbers))),
            torch.from_numpy(rows.repeat(len(numbers))),
            torch.tensor(numbers).repeat(len(rows)),
            answers,
        )

    def render(self, view: int, rows: NDArray[np.int64]) -> Tensor:
        """Render a view of samples: uint8 [B, C, H, W]."""
        return self._rendered(view, rows, self._images(rows))

    def _rendered(self, view: int, rows: NDArray[np.int64], images: Images) -> Tensor:
        return self.views.apply(images, self.source.parameters(view, rows, images))

    def _answers(self, numbers: list[int], rows: NDArray[np.int64], rendered: Sequence[Tensor]) -> Answers | None:
        """Of every view of a step; None where there is no teacher."""
        said = [self.source.answers(view, rows, images) for view, images in zip(numbers, rendered, strict=True)]
        answers = [each for each in said if each is not None]
        return adjacent(answers) if answers else None

    def ask(self, index: int) -> RenderRequest:
        """Return the request for a worker to render a step, where the source is remote."""
        if self._expected is None:  # the first: what is read unexpected may be let go, and fetched twice
            self.expect(index)
        numbers, rows = self._read_by(index)
        return RenderRequest(index, [self.source.parameters(view, rows, torch.empty(0)) for view in numbers])

    def answered(self, step: Step, pin_memory: bool) -> Step:
        """Add the teacher's signals to a step that a worker has rendered."""
        self.expect(step.index)
        numbers, rows = self._read_by(step.index)
        answers = self._answers(numbers, rows, [step.images[i :: len(numbers)] for i in range(len(numbers))])
        step.answers = answers.pin_memory() if answers and pin_memory else answers
        return step

    def expect(self, index: int) -> None:
        """Tell a remote source what a step and those after it read: its window of the order, and the next window."""
        if not self.source.remote:
            return
        epoch, within = divmod(index, self.steps_per_epoch)
        shuffled, ends = self._order(epoch)
        number = int(np.searchsorted(ends, self._start(within), side="right"))
        if (epoch, number) == self._expected:
            return
        self._expected = epoch, number
        parts = np.split(shuffled, ends[:-1])[number : number + 2]
        upcoming = [(view, part) for part in parts for view in self.views_of(epoch)]
        if len(parts) < 2 and epoch + 1 < self.config.epochs:
            shuffled, ends = self._order(epoch + 1)
            upcoming += [(view, shuffled[: ends[0]]) for view in self.views_of(epoch + 1)]
        self.source.expect(upcoming)

    def _read_by(self, index: int) -> tuple[list[int], NDArray[np.int64]]:
        """The views and the samples of a step."""
        epoch, within = divmod(index, self.steps_per_epoch)
        shuffled, _ = self._order(epoch)
        return self.views_of(epoch), shuffled[self._start(within) : self._start(within + 1)]

    def _start(self, within: int) -> int:
        """Where a batch begins in its epoch's order: the first ones are larger by one."""
        size, more = divmod(self.samples.count, self.steps_per_epoch)
        return within * size + min(within, more)

    def _order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The order of an epoch, and where its windows end. The one before is kept where it is asked for by turns."""
        if epoch not in self._orders:
            for old in list(self._orders)[: -1 if self.source.remote else None]:
                del self._orders[old]
            parts = windows(self.seed, epoch, self.samples.count, self.rows_per_block)
            if self.config.sampling == "balanced":
                parts = balanced(parts, self.labels, self.seed, epoch)
            self._orders[epoch] = np.concatenate(parts), np.cumsum([len(part) for part in parts])
        return self._orders[epoch]

    def _images(self, rows: NDArray[np.int64]) -> Images:
        return self.samples.read(rows) if self.resident is None else self.resident[torch.from_numpy(rows)]


def refuse_too_many_views(config: TrainConfig, count: int) -> None:
    """Raise ConfigError if a step is to have more views of a sample than there are."""
    if config.views_per_step > count:
        fix = "raise `views.count` and run `pipeline cache-teacher` again, or lower it"
        what = "the views of a sample in a batch are different ones"
        problem = Problem("train.views_per_step", what, f"at most {count}", str(config.views_per_step), fix)
        raise ConfigError([problem])


def worker_count(config: TrainConfig, resident: bool) -> int:
    """Return how many processes read and render: none where images are in memory, unless the section says so."""
    if config.workers is not None:
        return config.workers
    return 0 if resident else max(1, (os.cpu_count() or 2) - 1)


def loader(steps: Steps, start: int, device: torch.device) -> Iterator[Step]:
    """Return the steps from `start` on: rendered here where images are in memory, else by worker processes."""
    workers = worker_count(steps.config, steps.resident is not None)
    numbers, pin_memory = range(start, len(steps)), device.type == "cuda"
    apart = workers > 0 and steps.source.remote
    batches: DataLoader[Step] = DataLoader(
        steps,
        batch_size=None,
        sampler=map(steps.ask, numbers) if apart else numbers,
        num_workers=workers,
        pin_memory=pin_memory,
        prefetch_factor=4 if workers else None,
    )
    return (steps.answered(step, pin_memory) for step in batches) if apart else iter(batches)
