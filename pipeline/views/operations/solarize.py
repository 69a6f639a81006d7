"""Inverts all pixels above a threshold with a given probability, as torchvision's RandomSolarize does, exactly."""

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
from pipeline.views.operations import _levels
from pipeline.views.operations._chosen import change_chosen_


class Options(OperationOptions):
    """Declares the `probability` that a view is changed, and the `threshold` from which on values are inverted."""

    name: Literal["solarize"] = "solarize"
    probability: float = Field(0.5, ge=0, le=1, examples=[0.0, 1.0])
    threshold: int = Field(128, ge=0, le=255, examples=[0, 200])


@dataclass(frozen=True)
class Solarize:
    """Inverts what is light: values of at least `threshold` become 255 less the value.

    Column `solarized`: 1 if a view is changed, else 0.
    """

    probability: float
    threshold: int

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("solarized",)
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
        """Invert the light pixels of the chosen images: uint8 [B, C, H, W]."""
        result = images.clone(memory_format=torch.contiguous_format)
        threshold = torch.full_like(parameters[:, 0], self.threshold)
        change_chosen_(result, parameters[:, 0] == 1, _levels.solarize, threshold)
        return result


def build(options: Options) -> Solarize:
    """Make the operation."""
    return Solarize(options.probability, options.threshold)
