"""Mirrors up and down with a given probability, as torchvision's RandomVerticalFlip does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.views.keyed_random import reals
from pipeline.views.operation import OperationOptions, Size


class Options(OperationOptions):
    """Declares the `probability` that a view is mirrored."""

    name: Literal["vertical-flip"] = "vertical-flip"
    probability: float = Field(0.5, ge=0, le=1, examples=[0.0, 1.0])


@dataclass(frozen=True)
class VerticalFlip:
    """Mirrors images up and down.

    Column `flip`: 1 if a view is mirrored, else 0.
    """

    probability: float

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("flip",)
    words: ClassVar[int] = 1
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return zero and one."""
        return ((0, 1),)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw 1 where a real in [0, 1) is below the probability."""
        return (reals(words) < self.probability).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Mirror the chosen images: uint8 [B, C, H, W]."""
        B = len(images)
        # As in horizontal-flip: both versions side by side and one gather of whole images.
        both = torch.cat([images, images.flip(2)])
        return both.index_select(0, torch.arange(B, device=images.device) + B * parameters[:, 0])


def build(options: Options) -> VerticalFlip:
    """Make the operation."""
    return VerticalFlip(options.probability)
