"""Inverts all pixels above a threshold with a given probability, as torchvision's RandomSolarize does, exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.views.operation import OperationOptions
from pipeline.views.operations import _levels
from pipeline.views.operations._chance import ByChance
from pipeline.views.operations._chosen import change_chosen_


class Options(OperationOptions):
    """Declares the `probability` that a view is changed, and the `threshold` from which on values are inverted."""

    name: Literal["solarize"] = "solarize"
    probability: float = Field(0.5, ge=0, le=1, examples=[0.0, 1.0])
    threshold: int = Field(128, ge=0, le=255, examples=[0, 200])


@dataclass(frozen=True)
class Solarize(ByChance):
    """Inverts what is light: values of at least `threshold` become 255 less the value.

    Column `solarized`: 1 if a view is changed, else 0.
    """

    threshold: int

    parameter_names: ClassVar[tuple[str, ...]] = ("solarized",)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Invert the light pixels of the chosen images: uint8 [B, C, H, W]."""
        result = images.clone(memory_format=torch.contiguous_format)
        threshold = torch.full_like(parameters[:, 0], self.threshold)
        change_chosen_(result, parameters[:, 0] == 1, _levels.solarize, threshold)
        return result


def build(options: Options) -> Solarize:
    """Make the operation that `options` describe."""
    return Solarize(options.probability, options.threshold)
