"""Blends two images, and their labels, by a random share.

Zhang et al., mixup: Beyond Empirical Risk Minimization, arXiv 1710.09412. The share is drawn for every view, not
once for a batch, and the partner from all samples that are learnt from, not from a batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from pipeline.views.operation import OperationOptions
from pipeline.views.operations._mix import Alpha, MixOrCut, MixProbability


class Options(OperationOptions):
    """Mixes a view with this `probability`; the share of its own image is drawn from Beta(`alpha`, `alpha`)."""

    name: Literal["mixup"] = "mixup"
    alpha: Alpha = Field(0.8, examples=[0.2, 1.0])
    probability: MixProbability = Field(1.0, examples=[0.0, 0.5])


@dataclass(frozen=True)
class Mixup(MixOrCut):
    """Blends the image with the partner's: a level is `(s a + (65536 - s) b + 32768) >> 16`, of the sample's a and b.

    Column `share`: s, from 0 to 65,536, where the view is the image itself.
    """


def build(options: Options) -> Mixup:
    """Make the operation that `options` describe."""
    return Mixup(options.alpha, None, 0.0, options.probability)
