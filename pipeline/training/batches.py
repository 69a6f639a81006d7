"""Makes batches: chooses samples and views of every step, renders them, and adds the teacher's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from pipeline import own_code
from pipeline.data import Images, Samples
from pipeline.errors import CACHE_COMMAND, ConfigError, Problem, during
from pipeline.objectives import MixedLabels
from pipeline.training.config import TrainConfig
from pipeline.training.encoded_outputs import TeacherOutputs, join_views
from pipeline.training.fresh_views import FreshViews
from pipeline.training.neighbourhood import Neighbourhood
from pipeline.training.order import balanced, windows
from pipeline.training.share import Share
from pipeline.training.step import Step
from pipeline.training.teacher_outputs import ViewSource
from pipeline.views import DrawnViews, SampleViews, Views, view_of

ENDLESS = range(2**31)
"""Numbers of views without a cache: every epoch has views of its own."""


class RenderRequest(NamedTuple):
    """Holds what a worker needs to render a step where the source is remote and only this process reads it.

    Args:
        step: the number of the step.
        parameters: of each of its views, int32 [B, P]; None for one that is drawn.
    """

    step: int
    parameters: list[NDArray[np.int32] | None]


class Steps(Dataset[Step]):
    """Makes every step of a run by its number: epoch = step // steps_per_epoch. No step depends on earlier ones.

    Args:
        samples: the samples to train on.
        views: renders them.
        source: gives parameters of views and teacher's outputs.
        numbers: the numbers of the views that epochs go through.
        config: batches and epochs.
        seed: of the order of samples.
        rows_per_block: samples in a row block of the cache, for an order whose reads are local.
        neighbourhood: puts neighbours of samples into their batches; None for batches of single samples.

    Attributes:
        share: which samples of every step are rendered: all but where several processes train together.

    Raises ConfigError if a step needs more views of each sample than there are, or if classes are to be balanced and
    there are no labels.
    """

    def __init__(
        self,
        samples: Samples,
        views: Views,
        source: ViewSource,
        numbers: Sequence[int],
        config: TrainConfig,
        seed: int,
        rows_per_block: int,
        neighbourhood: Neighbourhood | None = None,
    ) -> None:
        self.samples, self.views, self.source, self.numbers = samples, views, source, numbers
        self.config, self.seed, self.rows_per_block = config, seed, rows_per_block
        self.neighbourhood = neighbourhood
        refuse_too_many_views(config, len(numbers))
        config.refuse_without("train", labels=samples.labels is not None, holdout=True)
        self.steps_per_epoch = -(-samples.count // config.samples_per_step)
        self.rows_per_epoch = samples.count * config.views_per_step
        self.resident = samples.resident(int(config.resident_gigabytes * 2**30))
        labels = samples.labels
        self.labels = np.full(samples.count, -1, np.int64) if labels is None else labels
        self._orders: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._expected: tuple[int, int] | None = None
        self.share = Share()

    @classmethod
    def fresh(cls, samples: Samples, views: Views, config: TrainConfig, seed: int) -> Steps:
        """Make steps for training on labels alone: views are drawn anew for every epoch, and there is no teacher.

        Args:
            samples, views, config, seed: as for `Steps`.
        """
        return cls(samples, views, FreshViews(), ENDLESS, config, seed, samples.count)

    def __len__(self) -> int:
        return self.steps_per_epoch * self.config.epochs

    def views_of(self, epoch: int) -> list[int]:
        """Return the numbers of the views of `epoch`: different ones, as many as a step has of each sample."""
        first = epoch * self.config.views_per_step + self.config.view_offset
        return [self.numbers[(first + i) % len(self.numbers)] for i in range(self.config.views_per_step)]

    def __getitem__(self, requested: int | RenderRequest) -> Step:
        try:
            return self._step(requested)
        except (Exception, SystemExit) as error:
            # Of an error in a worker process no traceback comes back, and no note.
            if get_worker_info() and (failure := own_code.failure_of(error)):
                raise failure from None
            raise

    def together(self, index: int, count: int) -> Step:
        """Make `count` steps of an epoch, from number `index` on, as one batch: the rows of one after the other's."""
        return self._step(index, count)

    def _step(self, requested: int | RenderRequest, count: int = 1) -> Step:
        index = requested.step if isinstance(requested, RenderRequest) else requested
        numbers, rows = self.read_by(index, count)
        own = self.share.of_step(len(rows), self.config.accumulate)
        images, outputs = self.images(rows[own]), None
        if isinstance(requested, RenderRequest):
            stored = requested.parameters
        else:
            self.expect(index)
            stored = [self.source.parameters(view, rows) for view in numbers]
        views = zip(numbers, stored, strict=True)
        drawn = [self._drawn(view, rows[own], images, each if each is None else each[own]) for view, each in views]
        rendered = [each.pixels for each in drawn]
        if not isinstance(requested, RenderRequest):
            outputs = self._teacher_outputs(numbers, rows, rendered)
        return Step(
            index,
            rendered[0] if len(rendered) == 1 else torch.stack(rendered, 1).flatten(0, 1),
            torch.from_numpy(self.labels[rows].repeat(len(numbers))),
            torch.from_numpy(rows.repeat(len(numbers))),
            torch.tensor(numbers).repeat(len(rows)),
            outputs,
            self.mixed_labels(self._whole(numbers, rows, stored, drawn)),
            share=self.share,
        )

    def _whole(
        self,
        numbers: Sequence[int],
        rows: NDArray[np.int64],
        stored: Sequence[NDArray[np.int32] | None],
        drawn: Sequence[DrawnViews],
    ) -> list[NDArray[np.int32]]:
        """Return the parameters of the views of a step, of those samples too that other processes render."""
        if self.share.size == 1 or self.views.mixing is None:
            return [each.parameters for each in drawn]
        views = zip(numbers, stored, strict=True)
        return [self._rendering.parameters(view, rows) if each is None else each for view, each in views]

    @property
    def _rendering(self) -> SampleViews:
        return SampleViews(self.samples, self.views, self.images)

    def render(self, view: int, rows: NDArray[np.int64], images: Images | None = None) -> DrawnViews:
        """Render the view with number `view` of the samples `rows` [B]; return its parameters and its pixels.

        Args:
            images: theirs, if they were read already.
        """
        images = self.images(rows) if images is None else images
        return self._drawn(view, rows, images, self.source.parameters(view, rows))

    def parameters(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return the parameters [B, P] of a view of the samples `rows` [B]: those that are stored, or else drawn."""
        stored = self.source.parameters(view, rows)
        return self._rendering.parameters(view, rows) if stored is None else stored

    def mixed_with(self, parameters: NDArray[np.int32]) -> NDArray[np.int64] | None:
        """Return the samples [B] that views with these parameters [B, P] are mixed with; None without mixing."""
        return self._rendering.mixed_with(parameters)

    def mixed_labels(self, parameters: Sequence[NDArray[np.int32]]) -> MixedLabels | None:
        """Return the labels that views mix in, and the shares; None where views do not mix.

        Args:
            parameters: of each view of the same samples, [B, P]; those of a sample become adjacent rows.
        """
        others = [each for each in map(self.mixed_with, parameters) if each is not None]
        if not others:
            return None
        labels = np.stack([self.labels[each] for each in others], 1).reshape(-1)
        shares = np.stack([self.views.shares_in(each) for each in parameters], 1).reshape(-1)
        return MixedLabels(torch.from_numpy(labels), torch.from_numpy(shares))

    def _drawn(
        self, view: int, rows: NDArray[np.int64], images: Images, parameters: NDArray[np.int32] | None
    ) -> DrawnViews:
        """Render a view of samples; parameters: as they are stored, None if they are to be drawn."""
        with during(lambda: view_of(self.samples, view, rows)):
            if parameters is None:
                return self._rendering.draw(view, rows, images)
            return DrawnViews(parameters, self._rendering.render(rows, parameters, images))

    def _teacher_outputs(
        self, numbers: list[int], rows: NDArray[np.int64], rendered: Sequence[Tensor]
    ) -> TeacherOutputs | None:
        """Return the outputs for every view of a step; None where there is no teacher."""
        views = zip(numbers, rendered, strict=True)
        read = [self.source.teacher_outputs(view, rows, images) for view, images in views]
        outputs = [each for each in read if each is not None]
        return join_views(outputs) if outputs else None

    def render_request(self, index: int) -> RenderRequest:
        """Return the request for a worker to render the step `index`, where the source is remote."""
        if self._expected is None:  # the first step: what was not announced may be dropped, and fetched twice
            self.expect(index)
        numbers, rows = self.read_by(index)
        return RenderRequest(index, [self.source.parameters(view, rows) for view in numbers])

    def add_teacher_outputs(self, step: Step, pin_memory: bool) -> Step:
        """Add the teacher's outputs to a step that a worker has rendered.

        Args:
            pin_memory: into page-locked memory.
        """
        self.expect(step.index)
        numbers, rows = self.read_by(step.index)
        outputs = self._teacher_outputs(numbers, rows, [step.images[i :: len(numbers)] for i in range(len(numbers))])
        step.teacher_outputs = outputs.pin_memory() if outputs and pin_memory else outputs
        return step

    def expect(self, index: int) -> None:
        """Announce to a remote source what the step `index` and later ones read: its window and the next."""
        if not self.source.remote:
            return
        epoch, within = divmod(index, self.steps_per_epoch)
        shuffled, ends = self._order(epoch)
        number = int(np.searchsorted(ends, self.start_of(within), side="right"))
        if (epoch, number) == self._expected:
            return
        self._expected = epoch, number
        parts = np.split(shuffled, ends[:-1])[number : number + 2]
        upcoming = [(view, part) for part in parts for view in self.views_of(epoch)]
        if len(parts) < 2 and epoch + 1 < self.config.epochs:
            shuffled, ends = self._order(epoch + 1)
            upcoming += [(view, shuffled[: ends[0]]) for view in self.views_of(epoch + 1)]
        self.source.expect(upcoming)

    def read_by(self, index: int, count: int = 1) -> tuple[list[int], NDArray[np.int64]]:
        """Return the numbers of the views of a step, and its samples [B], which its rows are all views of.

        Args:
            index: the number of the step.
            count: more than 1 for this step and those after it in its epoch.
        """
        epoch, within = divmod(index, self.steps_per_epoch)
        shuffled, _ = self._order(epoch)
        return self.views_of(epoch), shuffled[self.start_of(within) : self.start_of(within + count)]

    def start_of(self, within: int) -> int:
        """Return where step number `within` of an epoch begins in its order. The first steps have one sample more."""
        size, more = divmod(self.samples.count, self.steps_per_epoch)
        return within * size + min(within, more)

    def order_of(self, epoch: int) -> NDArray[np.int64]:
        """Return the samples [N] of an `epoch` in the order in which its steps have them."""
        return self._order(epoch)[0]

    def _order(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the order of an epoch, and where its windows end.

        For a remote source the order of the epoch before is kept too, since workers may still render its last steps.
        """
        if epoch not in self._orders:
            for old in list(self._orders)[: -1 if self.source.remote else None]:
                del self._orders[old]
            parts = windows(self.seed, epoch, self.samples.count, self.rows_per_block)
            if self.config.sampling == "balanced":
                parts = balanced(parts, self.labels, self.seed, epoch)
            order, ends = np.concatenate(parts), np.cumsum([len(part) for part in parts])
            if self.neighbourhood is not None:
                steps = np.diff([self.start_of(within) for within in range(self.steps_per_epoch + 1)]).tolist()
                order = self.neighbourhood.grouped(order, steps, self.config.accumulate, self.seed, epoch)
            self._orders[epoch] = order, ends
        return self._orders[epoch]

    def images(self, rows: NDArray[np.int64]) -> Images:
        """Read the images of the samples `rows` [B], from memory if they are there."""
        here = self.resident
        return self.samples.read(rows) if here is None else here.index_select(0, torch.from_numpy(rows))


def refuse_too_many_views(config: TrainConfig, count: int) -> None:
    """Raise ConfigError if `config` has more views of a sample in a step than there are.

    Args:
        count: the views there are.
    """
    if config.views_per_step > count:
        fix = f"raise `count` of the views and run {CACHE_COMMAND} again, or lower it"
        what = "the views of a sample in a batch are different ones"
        raise ConfigError([Problem("train.views_per_step", what, f"at most {count}", str(config.views_per_step), fix)])
