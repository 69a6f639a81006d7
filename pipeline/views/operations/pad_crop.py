"""Pads images on all sides, then crops them to the original size at a random place: the usual shift on CIFAR.

He et al., Deep Residual Learning for Image Recognition, arXiv 1512.03385, section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.views.keyed_random import integers
from pipeline.views.operation import OperationOptions, Size


class Options(OperationOptions):
    """Declares `padding`, the pixels that are added on every side, and `fill`, their value."""

    name: Literal["pad-crop"] = "pad-crop"
    padding: int = Field(4, ge=0, le=4096, examples=[0, 3])
    fill: int = Field(0, ge=0, le=255, examples=[128])


@dataclass(frozen=True)
class PadCrop:
    """Shifts images. The image gets `padding` pixels of value `fill` on every side, and a view has its old size.

    Columns `top` and `left`: the corner of the view in the padded image, uniform in [0, 2 padding].
    """

    padding: int
    fill: int

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("top", "left")
    words: ClassVar[int] = 2
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return zero and twice the padding, for any size."""
        return ((0, 2 * self.padding), (0, 2 * self.padding))

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw each column from one word."""
        return integers(words, 2 * self.padding + 1).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Pad and crop: uint8 [B, C, H, W]."""
        B, C, H, W = images.shape
        p = self.padding
        padded = F.pad(images, (p, p, p, p), value=self.fill).contiguous()
        Hp, Wp = H + 2 * p, W + 2 * p
        image = C * Hp * Wp
        # Every possible crop as an overlapping window on the padded bytes, from which one gather takes B: five
        # times as fast as indexing rows and columns, and as a loop over images.
        count = (B - 1) * image + 2 * p * (Wp + 1) + 1
        windows = padded.as_strided((count, C, H, W), (1, Hp * Wp, Wp, 1))
        top, left = parameters.to(torch.int64).unbind(1)
        start = torch.arange(B, device=images.device) * image + top * Wp + left
        return windows.index_select(0, start)


def build(options: Options) -> PadCrop:
    """Make the operation that `options` describe."""
    return PadCrop(options.padding, options.fill)
