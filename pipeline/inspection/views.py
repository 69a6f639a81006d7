"""Renders stored views again: from their stored parameters, as the teacher saw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.progress import Progress, Silent
from pipeline.store.format.arrays import MicroBatch
from pipeline.store.reader import TeacherCache
from pipeline.views import SampleViews, digest

if TYPE_CHECKING:
    from pipeline.data import Samples
    from pipeline.views import Views


class Replayed(NamedTuple):
    """Holds a rendered view of B samples.

    Args:
        images: uint8 [B, C, H, W].
        same: bool [B], whether the pixels are those of the cache.
        drawn: bool [B], whether the stored parameters are those that are drawn today.
    """

    images: Tensor
    same: NDArray[np.bool_]
    drawn: NDArray[np.bool_]


def replay(cache: TeacherCache, samples: Samples, views: Views, view: int, rows: NDArray[np.int64]) -> Replayed:
    """Render a view of samples from its stored parameters.

    Args:
        cache: the open cache.
        samples, views: those that it was made from.
        view: the number of the view.
        rows: the samples, [B].

    Raises DataError if the parameters do not fit the operations and images.
    """
    rendering, images, parameters = SampleViews(samples, views), samples.read(rows), cache.view_parameters(view, rows)
    drawn = rendering.parameters(view, rows, images)
    pixels = rendering.render(rows, parameters, images)
    same = digest(pixels) == cache.view_digests(view, rows)
    return Replayed(pixels, same, (drawn == parameters).all(axis=1))


@dataclass(frozen=True)
class ViewsReport:
    """Counts rendered views that differ from the cache.

    Args:
        views: how many were rendered.
        other_pixels, other_parameters: how many of them have other pixels, or would be drawn with other parameters.
        first: where the first of them is, for people; None if there is none.
    """

    views: int
    other_pixels: int
    other_parameters: int
    first: str | None

    @property
    def problems(self) -> list[str]:
        """List what is wrong, for people."""
        lines = []
        if self.other_pixels:
            lines.append(f"{self.other_pixels:,} of {self.views:,} views are not the pixels that the teacher saw")
        if self.other_parameters:
            lines.append(f"{self.other_parameters:,} of {self.views:,} views would be drawn otherwise today")
        return [f"{line}, first {self.first}" for line in lines]


def verify_views(
    cache: TeacherCache,
    samples: Samples,
    views: Views,
    sample: Sequence[MicroBatch],
    progress: Progress | None = None,
) -> ViewsReport:
    """Render the views of a sample of the cache again, and compare digests and parameters, one micro-batch at a time.

    Args:
        cache: the open cache.
        samples, views: those that it was made from.
        sample: the micro-batches.
        progress: shows how far the work is; None shows nothing.
    """
    progress = progress or Silent()
    pixels, parameters, first = 0, 0, None
    progress.begin("rendering views", len(sample), "micro-batches")
    for unit, block in sample:
        view, rows = cache.views[unit.view], np.arange(block.start, block.stop, dtype=np.int64)
        try:
            _, same, drawn = replay(cache, samples, views, view, rows)
        except DataError:  # a parameter out of range
            same = drawn = np.zeros(len(rows), np.bool_)
        pixels, parameters = pixels + int(np.sum(~same)), parameters + int(np.sum(~drawn))
        if first is None and len(wrong := np.flatnonzero(~(same & drawn))):
            row = int(rows[wrong[0]])
            first = f"view {view} of sample {row} ({samples.ids(rows[wrong[:1]])[0]})"
        progress.advance(1)
    progress.end()
    return ViewsReport(sum(len(block) for _, block in sample), pixels, parameters, first)
