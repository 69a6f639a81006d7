"""Turns by a random angle about the centre, as torchvision's RandomRotation does.

Sines are whole numbers (`_sines.py`), places are in fixed point (`_affine.py`). For the same angle the pixels are
those of torchvision, but for places that lie within about 2^-16 of the middle between two pixels (`nearest`: at
most one pixel in a thousand), or by one level (`bilinear`: at most one value in a hundred). Where a filled border
is blended with the image, torchvision's bilinear interpolation weighs the image twice; here it is weighed once.
"""

from __future__ import annotations

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
from pipeline.views.operations import _affine, _sines
from pipeline.views.operations._chosen import change_chosen_
from pipeline.views.operations._intervals import Interval, interval_around

_Degrees = Annotated[Interval, BeforeValidator(partial(interval_around, center=0.0, low=-360.0, high=360.0))]


class Options(OperationOptions):
    """Declares the interval of angles, in `degrees`, and the `probability` that a view is turned.

    Args:
        degrees: [least, largest], or a number d for [-d, d]; positive is to the left.
        interpolation: `nearest` or `bilinear`.
        fill: the level outside the image.
    """

    name: Literal["rotate"] = "rotate"
    probability: float = Field(1.0, ge=0, le=1, examples=[0.0, 0.5])
    degrees: _Degrees = Field((-15.0, 15.0), examples=[180, (90, 90), (-30.5, 7.25)])
    interpolation: _affine.Sampling = Field("nearest", examples=["bilinear"])
    fill: int = Field(0, ge=0, le=255, examples=[128])


@dataclass(frozen=True)
class Rotate:
    """Turns images about their centre; corners that leave the image are cut off, and `fill` is outside.

    Columns `sine` and `cosine` of the angle, positive to the left, in units of 2^-30; 0 and 2^30 leave a view as it
    is. Angles are uniform over the whole multiples of 1 / 65536 of a turn in the interval.
    """

    probability: float
    angles: tuple[int, int]
    interpolation: _affine.Sampling
    fill: int

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("sine", "cosine")
    words: ClassVar[int] = 2
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return minus one to one."""
        return ((-_sines.ONE, _sines.ONE), (-_sines.ONE, _sines.ONE))

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw the angle from the first word, and from the second whether to turn."""
        low, high = self.angles
        angles = low + integers(words[:, 0], high - low + 1)
        angles = np.where(reals(words[:, 1]) < self.probability, angles, 0)
        return np.stack([_sines.sines(angles), _sines.cosines(angles)], 1).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Turn the images: uint8 [B, C, H, W]."""
        sine, cosine = parameters.to(torch.int64).unbind(1)
        zero = torch.zeros_like(sine)
        matrix = torch.stack([cosine, -sine, zero, sine, cosine, zero], 1)
        result = images.clone(memory_format=torch.contiguous_format)
        turned = (sine != 0) | (cosine != _sines.ONE)
        change_chosen_(result, turned, self._turned, matrix)
        return result

    def _turned(self, images: Tensor, matrix: Tensor) -> Tensor:
        return _affine.transform(images, matrix, self.interpolation, self.fill)


def build(options: Options) -> Rotate:
    """Make the operation that `options` describe."""
    low, high = (round(degrees * _sines.TURN / 360) for degrees in options.degrees)
    return Rotate(options.probability, (low, high), options.interpolation, options.fill)
