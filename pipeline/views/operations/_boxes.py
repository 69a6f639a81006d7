"""Draws rectangles of random area and proportions, as torchvision does for crops and for what is erased."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from pipeline.views.keyed_random import reals

TRIES = 10
"""Sizes drawn for each view, of which the first that fits is taken."""


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] < math.inf:
        raise PydanticCustomError("interval", "is not an interval: 0 < first <= second")
    return value


def _part(value: tuple[float, float]) -> tuple[float, float]:
    if value[1] > 1:
        raise PydanticCustomError("part", "is more than the whole image: give at most 1")
    return value


Ratio = Annotated[tuple[float, float], AfterValidator(_ordered)]
"""An interval of proportions in a configuration."""

Scale = Annotated[tuple[float, float], AfterValidator(_ordered), AfterValidator(_part)]
"""An interval of parts of the whole area in a configuration."""


def draw_sides(
    words: NDArray[np.uint64], sizes: NDArray[np.int64], scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the short and the long name of a rectangle's sides: √(area / ratio) and √(area · ratio), int64 [B, TRIES].

    Nothing says that a rectangle fits.

    Logarithm and exponential may differ by a last bit between machines; rounding to whole pixels hides it but for
    about one draw in 10^13, and the drawn parameters are stored.

    Args:
        words: uint64 [B, 2 TRIES]: areas come from the first half, ratios from the second, uniform in their logarithm.
        sizes: height and width of the images, [B, 2].
        scale: least and largest area, as parts of the image.
        ratio: least and largest proportion of the two sides.
    """
    low, high = scale
    area = sizes.prod(1)[:, None] * (low + (high - low) * reals(words[:, :TRIES]))
    low, high = np.log(ratio)
    drawn = np.exp(low + (high - low) * reals(words[:, TRIES : 2 * TRIES]))
    return np.rint(np.sqrt(area / drawn)).astype(np.int64), np.rint(np.sqrt(area * drawn)).astype(np.int64)
