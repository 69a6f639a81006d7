"""Reads a few images, renders a view of each, and measures how long reading, decoding and rendering take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.experiment.data import Data
from pipeline.views import SampleViews, sizes_of

IMAGES, FILES = 64, 8
"""How many images are read: of arrays, and of files that must be decoded."""

TIMED_REPEATS = 3
"""How often work is done where time allows it: other processes may disturb one of the measurements."""

Clock = Callable[[], float]
"""Gives seconds since some moment."""


@dataclass(frozen=True)
class TimedViews:
    """Holds a few views, and how long they took on this machine.

    Args:
        pixels: the views, uint8 [B, C, H, W].
        size: the largest height and width of their images, in pixels.
        decode: seconds to read and decode the image of a view, or both where views mix.
        render: seconds to render one view.
    """

    pixels: Tensor
    size: tuple[int, int]
    decode: float
    render: float

    @classmethod
    def measure(cls, data: Data, seconds: float, clock: Clock) -> TimedViews:
        """Read images from all over the samples until the time is over, and render the first view of each.

        They are read again to be timed: the first time opens files and loads libraries.

        Args:
            data: the packed data set.
            seconds: to spend, about.
            clock: measures them.
        """
        samples, views = data.training, data.views
        most = FILES if samples.split.image_shape is None else IMAGES
        rows = np.unique(np.linspace(0, samples.count - 1, most).astype(np.int64))
        images: list[Tensor] = []
        decode, start = 0.0, clock()
        for chunk in np.array_split(rows, -(-len(rows) // max(1, torch.get_num_threads()))):
            images += list(samples.read(chunk))
            decode += timed(lambda: samples.read(chunk), seconds / 4 / len(rows), clock)  # noqa: B023 - at once
            if clock() - start > seconds:
                break
        read = len(images)
        sizes = sizes_of(images)
        rendering = SampleViews(samples, views)
        drawn = rendering.parameters(views.numbers[0], rows[:read], images)
        others = rendering.mixed_with(drawn)
        partners = None if others is None else samples.read(others)
        together = torch.stack(images) if len({image.shape for image in images}) == 1 else images
        pixels: list[Tensor] = []
        render = timed(lambda: pixels.append(views.apply(together, drawn, partners)), seconds / 4, clock)
        height, width = sizes.max(0).tolist()
        return cls(pixels[-1], (height, width), (1 if partners is None else 2) * decode / read, render / read)


def timed(work: Callable[[], object], seconds: float, clock: Clock) -> float:
    """Return the seconds that work takes at its quickest: what else a machine does only ever adds to them.

    Args:
        work: is called once at least, and `TIMED_REPEATS` times unless they take as many times longer than `seconds`.
        seconds: to spend.
        clock: measures them.
    """
    found: list[float] = []
    start = clock()
    while not found or clock() - start < seconds * (TIMED_REPEATS if len(found) < TIMED_REPEATS else 1):
        before = clock()
        work()
        found.append(clock() - before)
    return min(found)
