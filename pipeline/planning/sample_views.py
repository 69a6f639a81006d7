"""A look at a handful of images and their views, and how long reading, decoding and rendering take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.experiment.data import Data
from pipeline.views import sizes_of

IMAGES, FILES = 64, 8
"""Images that are read: arrays, and files that must be decoded."""

TIMED_REPEATS = 3
"""Times that work is done where time allows it: other processes disturb one or the other."""

Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Look:
    """Some views, uint8 [B, C, H, W], the images' largest height and width, and the seconds for one of each."""

    pixels: Tensor
    size: tuple[int, int]
    decode: float
    render: float

    @classmethod
    def at(cls, data: Data, seconds: float, clock: Clock) -> Look:
        """Read images from all over the samples until the time is over, and render the first view of each.

        They are read again to be timed: the first time opens files and loads libraries.
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
        drawn = views.parameters(views.numbers[0], samples.positions[rows[:read]], sizes)
        together = torch.stack(images) if len({image.shape for image in images}) == 1 else images
        pixels: list[Tensor] = []
        render = timed(lambda: pixels.append(views.apply(together, drawn)), seconds / 4, clock)
        height, width = sizes.max(0).tolist()
        return cls(pixels[-1], (height, width), decode / read, render / read)


def timed(work: Callable[[], object], seconds: float, clock: Clock) -> float:
    """Seconds that work takes at its quickest: what else a machine does only ever adds to them.

    seconds: to spend. It is done once at least, and `TIMED_REPEATS` times unless they take as many times longer.
    """
    found: list[float] = []
    start = clock()
    while not found or clock() - start < seconds * (TIMED_REPEATS if len(found) < TIMED_REPEATS else 1):
        before = clock()
        work()
        found.append(clock() - before)
    return min(found)
