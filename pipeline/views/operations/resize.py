"""Resizes images with an antialiased filter, bilinear or bicubic, in fixed point: see `pipeline/views/resample.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.views.operation import OperationOptions, ResizeFilter, Size, SizeOption, is_bilinear
from pipeline.views.resample import resample


class Options(OperationOptions):
    """Declares `size` in pixels: one number for the shorter side, which keeps proportions, or [height, width].

    Args:
        interpolation: `bilinear` or `bicubic`, both antialiased.
    """

    name: Literal["resize"] = "resize"
    size: SizeOption = Field(examples=[24, (20, 47)])
    interpolation: ResizeFilter = Field("bilinear", examples=["bicubic"], exclude_if=is_bilinear)


@dataclass(frozen=True)
class Resize:
    """Resizes images to `size`: height and width, or one number for the shorter side, which keeps proportions.

    It draws no parameters.
    """

    size: int | Size
    interpolation: ResizeFilter = "bilinear"

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[int] = 0
    needs_sizes: ClassVar[bool] = False

    @property
    def fixes_size(self) -> bool:
        """Tell whether both height and width are given."""
        return not isinstance(self.size, int)

    def output_size(self, size: Size | None) -> Size | None:
        """Return height and width after resizing; the longer side is rounded down."""
        if not isinstance(self.size, int):
            return self.size
        if size is None:
            return None
        short = min(size)
        return self.size * size[0] // short, self.size * size[1] // short

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return no ranges: there are no parameters."""
        return ()

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Return [B, 0]: nothing is drawn."""
        return np.empty((len(words), 0), np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Resize: uint8 [B, C, h, w]."""
        B, _, H, W = images.shape
        size = self.output_size((H, W))
        if size is None or size == (H, W):
            return images
        # Filled where the images lie: numbers copied to a device from here would have this process wait for it.
        boxes = torch.zeros(B, 4, dtype=torch.int64, device=images.device)
        boxes[:, 2].fill_(H)
        boxes[:, 3].fill_(W)
        return resample(images, boxes, size, self.interpolation)


def build(options: Options) -> Resize:
    """Make the operation that `options` describe."""
    return Resize(options.size, options.interpolation)
