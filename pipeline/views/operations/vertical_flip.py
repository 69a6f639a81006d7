"""Mirrors up and down with a given probability, as torchvision's RandomVerticalFlip does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.views.operation import OperationOptions
from pipeline.views.operations._chance import ByChance, mirrored


class Options(OperationOptions):
    """Declares the `probability` that a view is mirrored."""

    name: Literal["vertical-flip"] = "vertical-flip"
    probability: float = Field(0.5, ge=0, le=1, examples=[0.0, 1.0])


@dataclass(frozen=True)
class VerticalFlip(ByChance):
    """Mirrors images up and down.

    Column `flip`: 1 if a view is mirrored, else 0.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("flip",)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Mirror the chosen images: uint8 [B, C, H, W]."""
        return mirrored(images, parameters[:, 0], 2)


def build(options: Options) -> VerticalFlip:
    """Make the operation that `options` describe."""
    return VerticalFlip(options.probability)
