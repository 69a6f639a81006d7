"""Crops a random part of random area and proportions, then resizes it: the usual augmentation on ImageNet.

Szegedy et al., Going Deeper with Convolutions, arXiv 1409.4842, section 6; drawn as torchvision's
RandomResizedCrop does: ten tries, then the largest central part whose proportions are allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.views.keyed_random import integers
from pipeline.views.operation import OperationOptions, ResizeFilter, Size, SizeOption, is_bilinear, square
from pipeline.views.operations._boxes import TRIES, Ratio, Scale, draw_sides
from pipeline.views.resample import resample


class Options(OperationOptions):
    """Declares `size` of the result in pixels; `scale`: part of the area; `ratio`: width by height of the crop.

    Args:
        interpolation: `bilinear` or `bicubic`, both antialiased.
    """

    name: Literal["resized-crop"] = "resized-crop"
    size: SizeOption = Field(examples=[24, (20, 28)])
    scale: Scale = Field((0.08, 1.0), examples=[(0.5, 0.5)])
    ratio: Ratio = Field((3 / 4, 4 / 3), examples=[(5.0, 9.0), (0.05, 0.1)])
    interpolation: ResizeFilter = Field("bilinear", examples=["bicubic"], exclude_if=is_bilinear)


@dataclass(frozen=True)
class ResizedCrop:
    """Cuts a part out of an image and resizes it to `size`: height and width, or one number for a square.

    Columns `top`, `left`, `height`, `width` of the part, in pixels of the image that the operation gets: corners are
    counted from 0, and heights and widths are at least 1.
    """

    size: Size
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: ResizeFilter = "bilinear"

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("top", "left", "height", "width")
    words: ClassVar[int] = 2 * TRIES + 2
    needs_sizes: ClassVar[bool] = True
    fixes_size: ClassVar[bool] = True

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size that the options name."""
        return self.size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the corners and sizes of crops of at least one pixel, inside the image."""
        H, W = size
        return ((0, H - 1), (0, W - 1), (1, H), (1, W))

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw areas from ten words, proportions from the next ten, the corner from the last two."""
        assert sizes is not None
        H, W = sizes[:, 0], sizes[:, 1]
        heights, widths = draw_sides(words[:, : 2 * TRIES], sizes, self.scale, self.ratio)
        fits = (heights >= 1) & (heights <= H[:, None]) & (widths >= 1) & (widths <= W[:, None])
        found, chosen = fits.any(1), fits.argmax(1)[:, None]
        central_height, central_width = self._central(H, W)
        height = np.where(found, np.take_along_axis(heights, chosen, 1)[:, 0], central_height)
        width = np.where(found, np.take_along_axis(widths, chosen, 1)[:, 0], central_width)
        top = np.where(found, integers(words[:, -2], H - height + 1), (H - height) // 2)
        left = np.where(found, integers(words[:, -1], W - width + 1), (W - width) // 2)
        return np.stack([top, left, height, width], 1).astype(np.int32)

    def _central(self, H: NDArray[np.int64], W: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
        """Return height and width of the largest part whose proportions are allowed."""
        narrowest, widest = self.ratio
        ratio = W / H
        height = np.where(ratio < narrowest, np.rint(W / narrowest), H)
        width = np.where(ratio > widest, np.rint(H * widest), W)
        return np.clip(height, 1, H).astype(np.int64), np.clip(width, 1, W).astype(np.int64)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Crop and resize: uint8 [B, C, h, w]."""
        return resample(images, parameters.to(torch.int64), self.size, self.interpolation)


def build(options: Options) -> ResizedCrop:
    """Make the operation that `options` describe."""
    return ResizedCrop(square(options.size), options.scale, options.ratio, options.interpolation)
