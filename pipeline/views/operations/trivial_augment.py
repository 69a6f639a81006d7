"""Applies one random operation at a random strength: TrivialAugment Wide, in torchvision's space.

Müller and Hutter, TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation, arXiv 2103.10158. Drawn as
torchvision's TrivialAugmentWide does: operation and level are uniform, and half of the signs of operations that
have one are turned. What the pixels of an operation are against torchvision's: `docs/views.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.views.keyed_random import integers
from pipeline.views.operation import OperationOptions, Size
from pipeline.views.operations import _color
from pipeline.views.operations._affine import Sampling
from pipeline.views.operations._augment import NAMES, SIGNED, Augmenter, Space

SPACE = Space(
    shear=Fraction(99, 100), translate=Fraction(32), pixels=True, degrees=135, factor=Fraction(99, 100), bits=6
)


class Options(OperationOptions):
    """Declares that one operation is applied, at one of `num_magnitude_bins` levels.

    Args:
        interpolation: of what is turned, sheared or shifted, `nearest` or `bilinear`.
        fill: the level outside the image.
    """

    name: Literal["trivial-augment"] = "trivial-augment"
    num_magnitude_bins: int = Field(31, ge=2, le=1024, examples=[2])
    interpolation: Sampling = Field("nearest", examples=["bilinear"])
    fill: int = Field(0, ge=0, le=255, examples=[128])


@dataclass(frozen=True)
class TrivialAugment:
    """Applies one operation at a random level.

    Columns `operation`, a number as in `randaugment`, and `level`, from 0 to `num_magnitude_bins` - 1, or its negative.
    """

    augmenter: Augmenter

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("operation", "level")
    words: ClassVar[int] = 3
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the number of operations, and the levels with both signs."""
        highest = self.augmenter.bins - 1
        return ((0, len(NAMES) - 1), (-highest, highest))

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw operation, level, and the sign of operations that have one, from one word each."""
        operation, level = integers(words[:, 0], len(NAMES)), integers(words[:, 1], self.augmenter.bins)
        negative = np.isin(operation, SIGNED) & (integers(words[:, 2], 2) == 1)
        return np.stack([operation, np.where(negative, -level, level)], 1).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Apply the operation of each view: uint8 [B, C, H, W].

        Images of one channel have no `color`, which leaves them as they are. Raises DataError for other than one
        or three channels.
        """
        _color.require_colors(images, "trivial-augment")
        result = images.clone(memory_format=torch.contiguous_format)
        self.augmenter.change_(result, parameters[:, 0], parameters[:, 1])
        return result


def build(options: Options) -> TrivialAugment:
    """Make the operation that `options` describe."""
    return TrivialAugment(Augmenter(SPACE, options.num_magnitude_bins, options.interpolation, options.fill))
