"""Cuts out the middle of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.errors import ConfigError, DataError, Problem
from pipeline.views.operation import OperationOptions, Size, SizeOption, square


class Options(OperationOptions):
    """Declares `size` in pixels: one number for a square, or [height, width]."""

    name: Literal["center-crop"] = "center-crop"
    size: SizeOption = Field(examples=[24, (20, 28)])


@dataclass(frozen=True)
class CenterCrop:
    """Cuts out the middle of an image: `size` is height and width, or one number for a square.

    It draws no parameters.
    """

    size: Size

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ()
    words: ClassVar[int] = 0
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = True

    def output_size(self, size: Size | None) -> Size | None:
        """Return the crop's own size. Raises ConfigError if the images are smaller."""
        if size is not None and (size[0] < self.size[0] or size[1] < self.size[1]):
            what, fix = "the crop is larger than the images", "put a resize before it"
            problem = Problem("size", what, f"at most {size[0]} x {size[1]}", "{} x {}".format(*self.size), fix)
            raise ConfigError([problem])
        return self.size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return no ranges: there are no parameters."""
        return ()

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Return [B, 0]: nothing is drawn."""
        return np.empty((len(words), 0), np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Cut out the middle: uint8 [B, C, h, w]. Raises DataError if an image is smaller than that."""
        (H, W), (h, w) = images.shape[2:], self.size
        if h > H or w > W:
            raise DataError(
                "an image is smaller than its center-crop",
                expected=f"at least {h} x {w} pixels",
                got=f"{H} x {W}",
                fix="put a resize before center-crop",
            )
        # A half pixel is rounded to the even one, as torchvision does.
        top, left = round((H - h) / 2), round((W - w) / 2)
        return images[:, :, top : top + h, left : left + w].contiguous()


def build(options: Options) -> CenterCrop:
    """Make the operation that `options` describe."""
    return CenterCrop(square(options.size))
