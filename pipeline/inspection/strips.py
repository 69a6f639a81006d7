"""Gathers samples, their views and the teacher's classes for them, to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data import Samples
from pipeline.inspection.views import replay
from pipeline.store.reader import TeacherCache
from pipeline.views import SampleViews, Views

GUESSES = 3
"""How many of the teacher's classes are shown for each view."""


@dataclass(frozen=True)
class Guess:
    """Holds one of the teacher's classes for a view.

    Args:
        name: of the class.
        probability: that the teacher gives it, in [0, 1].
        right: whether it is a label of what the view shows.
    """

    name: str
    probability: float
    right: bool


@dataclass(frozen=True)
class Tile:
    """Holds a view of a sample.

    Args:
        image: uint8 [H, W, 1 or 3].
        guesses: the teacher's top classes.
        same: whether the pixels are those of the cache.
    """

    image: NDArray[np.uint8]
    guesses: Sequence[Guess]
    same: bool


@dataclass(frozen=True)
class Strip:
    """Holds a sample and its views.

    Args:
        image: uint8 [H, W, 1 or 3].
        name: its id.
        label: the name of its class; None if it has none.
        tiles: its views.
    """

    image: NDArray[np.uint8]
    name: str
    label: str | None
    tiles: Sequence[Tile]


def cache_strips(
    cache: TeacherCache,
    samples: Samples,
    views: Views,
    classes: Sequence[str],
    numbers: Sequence[int],
    rows: NDArray[np.int64],
) -> list[Strip]:
    """Return some samples of a cache, with some of their views, rendered from their stored parameters.

    Args:
        cache: the open cache.
        samples, views: those that it was made from.
        classes: K names.
        numbers: of the views.
        rows: the samples, [B].
    """
    labels = np.full(len(rows), -1) if samples.labels is None else samples.labels[rows]
    columns = []
    for view in numbers:
        replayed = replay(cache, samples, views, view, rows)
        logits = cache.read(view, rows).logits
        top = logits.softmax(1).topk(min(GUESSES, logits.shape[1]))
        others = SampleViews(samples, views).mixed_with(cache.view_parameters(view, rows))
        right = [{label} for label in labels.tolist()]
        if others is not None and samples.labels is not None:
            right = [own | {label} for own, label in zip(right, samples.labels[others].tolist(), strict=True)]
        guesses = [
            [Guess(classes[k], p, k in named) for k, p in zip(indices, values, strict=True)]
            for indices, values, named in zip(top.indices.tolist(), top.values.tolist(), right, strict=True)
        ]
        parts = zip(replayed.images, guesses, replayed.same.tolist(), strict=True)
        columns.append([Tile(drawable(image), found, same) for image, found, same in parts])
    strips = []
    for number, (image, name) in enumerate(zip(samples.read(rows), samples.ids(rows), strict=True)):
        label = None if labels[number] < 0 else classes[labels[number]]
        strips.append(Strip(drawable(image), name, label, [column[number] for column in columns]))
    return strips


def drawable(image: Tensor) -> NDArray[np.uint8]:
    """Return what can be seen of an image, uint8 [H, W, 1 or 3].

    Args:
        image: uint8 [C, H, W].
    """
    drawn = image if len(image) in (1, 3) else image[:3] if len(image) > 3 else image[:1]  # what can be seen of it
    pixels: NDArray[np.uint8] = drawn.permute(1, 2, 0).numpy()
    return pixels
