"""Changes brightness, contrast, saturation and hue by random factors, in a random order.

As torchvision's ColorJitter. For the same factors and order a value is torchvision's own, but for one level in at
most one value of a hundred after one step; further steps add to that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from torch import Tensor

from pipeline.views.keyed_random import integers, reals
from pipeline.views.operation import OperationOptions, Size
from pipeline.views.operations import _color
from pipeline.views.operations._chosen import change_chosen_, constants
from pipeline.views.operations._color import LARGEST_FACTOR, ONE
from pipeline.views.operations._intervals import Interval, interval_around

ORDERS = tuple(itertools.permutations(range(4)))
"""Orders of the four steps, numbered as the column `order` does: the first is that of the columns."""

_STEPS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    _color.adjust_brightness,
    _color.adjust_contrast,
    _color.adjust_saturation,
    _color.adjust_hue,
)

_Factors = Annotated[Interval, BeforeValidator(partial(interval_around, center=1.0, low=0.0, high=LARGEST_FACTOR))]
_Shifts = Annotated[Interval, BeforeValidator(partial(interval_around, center=0.0, low=-0.5, high=0.5))]


class Options(OperationOptions):
    """Declares the intervals that factors are drawn from, and the `probability` that a view is changed.

    Args:
        brightness, contrast, saturation: factors from 0 to 16, of which 1 leaves the image as it is; one number s is
            [1 - s, 1 + s].
        hue: parts of the circle from -0.5 to 0.5; one number s is [-s, s].
    """

    name: Literal["color-jitter"] = "color-jitter"
    probability: float = Field(1.0, ge=0, le=1, examples=[0.0, 0.5])
    brightness: _Factors = Field((0.6, 1.4), examples=[(0.0, 16.0), 0.0])
    contrast: _Factors = Field((0.6, 1.4), examples=[(0.0, 16.0), 0.0])
    saturation: _Factors = Field((0.6, 1.4), examples=[(0.0, 16.0), 0.0])
    hue: _Shifts = Field((-0.1, 0.1), examples=[(-0.5, 0.5), 0.0])


@dataclass(frozen=True)
class ColorJitter:
    """Changes the brightness, contrast, saturation and hue of images, in the order that is drawn.

    Column `order`: of the 24 orders of these four steps in lexicographic order, counted from 0. Columns `brightness`,
    `contrast` and `saturation`: factors in units of 2^-16. Column `hue`: what is added to it, in units of 2^-16 of
    the circle. A view that is not changed has the order 0, the factors 2^16 and the shift 0. Images of one channel
    have neither saturation nor hue.
    """

    probability: float
    intervals: tuple[tuple[int, int], ...]

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("order", "brightness", "contrast", "saturation", "hue")
    words: ClassVar[int] = 6
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the number of orders, and the intervals, widened to what changes nothing."""
        neutral = (ONE, ONE, ONE, 0)
        wide = [(min(low, n), max(high, n)) for (low, high), n in zip(self.intervals, neutral, strict=True)]
        return ((0, len(ORDERS) - 1), *wide)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw from one word each: whether anything changes, the order, and each factor, uniform in its interval."""
        changed = reals(words[:, 0]) < self.probability
        columns = [np.where(changed, integers(words[:, 1], len(ORDERS)), 0)]
        for i, ((low, high), neutral) in enumerate(zip(self.intervals, (ONE, ONE, ONE, 0), strict=True)):
            columns.append(np.where(changed, low + integers(words[:, 2 + i], high - low + 1), neutral))
        return np.stack(columns, 1).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Change the colours: uint8 [B, C, H, W].

        Images of one channel have neither saturation nor hue. Raises DataError for other than one or three.
        """
        _color.require_colors(images, "color-jitter")
        result = images.clone(memory_format=torch.contiguous_format)
        order = constants(ORDERS, images)[parameters[:, 0].to(torch.int64)]
        for place, (number, step) in itertools.product(range(4), enumerate(_STEPS)):
            if self.intervals[number] == ((ONE, ONE) if number < 3 else (0, 0)):
                continue
            factor = parameters[:, 1 + number]
            change_chosen_(result, order[:, place] == number, step, factor)
        return result


def build(options: Options) -> ColorJitter:
    """Make the operation that `options` describe."""
    given = (options.brightness, options.contrast, options.saturation, options.hue)
    return ColorJitter(options.probability, tuple((round(low * ONE), round(high * ONE)) for low, high in given))
