"""Turns colours into greys with a given probability, as torchvision's RandomGrayscale does.

A grey is 0.2989 red + 0.587 green + 0.114 blue, rounded down, with weights in units of 2^-16: equal to
torchvision's on uint8 tensors, or one level off in at most one pixel of a hundred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.views.operation import OperationOptions
from pipeline.views.operations import _color
from pipeline.views.operations._chance import ByChance
from pipeline.views.operations._chosen import change_chosen_


class Options(OperationOptions):
    """Declares the `probability` that a view is made grey."""

    name: Literal["grayscale"] = "grayscale"
    probability: float = Field(0.1, ge=0, le=1, examples=[0.0, 1.0])


@dataclass(frozen=True)
class Grayscale(ByChance):
    """Makes images grey: all channels become (19589 red + 38470 green + 7471 blue) / 2^16, rounded down.

    Column `grey`: 1 if a view is made grey, else 0. Images of one channel stay as they are.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("grey",)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Make the chosen images grey: uint8 [B, C, H, W]. Images of one channel stay as they are.

        Raises DataError if there are neither one channel nor three.
        """
        _color.require_colors(images, "grayscale")
        if images.shape[1] == 1:
            return images
        result = images.clone(memory_format=torch.contiguous_format)
        change_chosen_(result, parameters[:, 0] == 1, _color.grayscale)
        return result


def build(options: Options) -> Grayscale:
    """Make the operation that `options` describe."""
    return Grayscale(options.probability)
