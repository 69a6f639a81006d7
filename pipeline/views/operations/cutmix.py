"""Puts a box of another image into each, and mixes their labels by its area.

Yun et al., CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features, arXiv 1905.04899.
The box has the proportions of the image and is cut off at its border, and labels go by what is left of it: timm's
box, of which those of the authors' code and of torchvision differ by a pixel where a side is odd. It is drawn for
every view, not once for a batch, and the partner from all samples that are learnt from, not from a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from pipeline.views.operation import OperationOptions
from pipeline.views.operations._mix import Alpha, MixOrCut, MixProbability


class Options(OperationOptions):
    """Mixes a view with this `probability`; the part outside the box is drawn from Beta(`alpha`, `alpha`)."""

    name: Literal["cutmix"] = "cutmix"
    alpha: Alpha = Field(1.0, examples=[0.2, 2.0])
    probability: MixProbability = Field(1.0, examples=[0.0, 0.5])


@dataclass(frozen=True)
class Cutmix(MixOrCut):
    """Puts a box of the partner's image into the image, at the same place.

    Columns `top`, `left`, `height`, `width` of the box, in pixels of the image; height and width may be 0.
    """


def build(options: Options) -> Cutmix:
    """Make the operation that `options` describe."""
    return Cutmix(None, options.alpha, 1.0, options.probability)
