"""Mirrors images left and right with a given probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from pipeline.views.operation import OperationOptions
from pipeline.views.operations._chance import ByChance, mirrored


class Options(OperationOptions):
    """Declares the `probability` with which a view is mirrored."""

    name: Literal["horizontal-flip"] = "horizontal-flip"
    probability: float = Field(0.5, ge=0, le=1, examples=[0.0, 1.0])


@dataclass(frozen=True)
class HorizontalFlip(ByChance):
    """Mirrors images left and right.

    Column `flip`: 1 if a view is mirrored, else 0.
    """

    parameter_names: ClassVar[tuple[str, ...]] = ("flip",)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Mirror the chosen images: uint8 [B, C, H, W]."""
        return mirrored(images, parameters[:, 0], 3)


def build(options: Options) -> HorizontalFlip:
    """Make the operation that `options` describe."""
    return HorizontalFlip(options.probability)
