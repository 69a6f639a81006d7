"""Applies a few random operations, all at one magnitude: RandAugment, in torchvision's space.

Cubuk et al., RandAugment: Practical Automated Data Augmentation with a Reduced Search Space, arXiv 1909.13719.
Drawn as torchvision's RandAugment does: every operation is equally likely, with repeats, and half of the signs of
those that have one are turned. What the pixels of an operation are against torchvision's: `docs/views.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from torch import Tensor

from pipeline.views.keyed_random import integers
from pipeline.views.operation import OperationOptions, Size
from pipeline.views.operations import _color
from pipeline.views.operations._affine import Sampling
from pipeline.views.operations._augment import NAMES, SIGNED, Augmenter, Space

SPACE = Space(
    shear=Fraction(3, 10), translate=Fraction(150, 331), pixels=False, degrees=30, factor=Fraction(9, 10), bits=4
)


class Options(OperationOptions):
    """Declares that `num_ops` operations are applied, each at level `magnitude` of `num_magnitude_bins`, from 0.

    Args:
        interpolation: of what is turned, sheared or shifted, `nearest` or `bilinear`.
        fill: the level outside the image.
    """

    name: Literal["randaugment"] = "randaugment"
    num_ops: int = Field(2, ge=1, le=16, examples=[1])
    magnitude: int = Field(9, ge=0, examples=[0, 30])
    num_magnitude_bins: int = Field(31, ge=2, le=1024, validate_default=True)
    interpolation: Sampling = Field("nearest", examples=["bilinear"])
    fill: int = Field(0, ge=0, le=255, examples=[128])

    @field_validator("num_magnitude_bins")
    @classmethod
    def _hold_the_magnitude(cls, value: int, info: ValidationInfo) -> int:
        if info.data.get("magnitude", 0) >= value:
            says = f"has no level {info.data['magnitude']}, which is the magnitude: levels are counted from 0"
            raise PydanticCustomError("levels", "{says}", {"says": says})
        return value


@dataclass(frozen=True)
class RandAugment:
    """Applies `num_ops` operations, one after the other, each at the level `magnitude`.

    Columns `operation1`, `level1`, `operation2`, `level2` and so on. An operation is a number from 0: identity,
    shear-x, shear-y, translate-x, translate-y, rotate, brightness, color, contrast, sharpness, posterize, solarize,
    auto-contrast, equalize. A level is `magnitude`, or its negative.
    """

    count: int
    magnitude: int
    augmenter: Augmenter

    exact: ClassVar[bool] = True
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return two names for each operation of a view."""
        return tuple(f"{name}{i + 1}" for i in range(self.count) for name in ("operation", "level"))

    @property
    def words(self) -> int:
        """Return two words for each operation of a view."""
        return 2 * self.count

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the number of operations, and the magnitude with both signs."""
        return ((0, len(NAMES) - 1), (-self.magnitude, self.magnitude)) * self.count

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw each operation from one word, and its sign, if it has one, from the next."""
        operation = integers(words[:, ::2], len(NAMES))
        negative = np.isin(operation, SIGNED) & (integers(words[:, 1::2], 2) == 1)
        level = np.where(negative, -self.magnitude, self.magnitude)
        return np.stack([operation, level], 2).reshape(len(words), -1).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Apply the operations one after the other: uint8 [B, C, H, W].

        Images of one channel have no `color`, which leaves them as they are. Raises DataError for other than one
        or three channels.
        """
        _color.require_colors(images, "randaugment")
        result = images.clone(memory_format=torch.contiguous_format)
        for operation, level in zip(parameters[:, ::2].unbind(1), parameters[:, 1::2].unbind(1), strict=True):
            self.augmenter.change_(result, operation, level)
        return result


def build(options: Options) -> RandAugment:
    """Make the operation that `options` describe."""
    augmenter = Augmenter(SPACE, options.num_magnitude_bins, options.interpolation, options.fill)
    return RandAugment(options.num_ops, options.magnitude, augmenter)
