"""Mixes each view by mixup or by CutMix, as chance has it: the recipe of DeiT and of timm's training script.

Touvron et al., Training data-efficient image transformers, arXiv 2012.12877, table 9. timm's `--mixup 0.8 --cutmix
1.0 --mixup-switch-prob 0.5 --mixup-prob 1.0 --mixup-mode elem` are the defaults here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from pipeline.views.operation import OperationOptions
from pipeline.views.operations._mix import Alpha, MixOrCut, MixProbability


class Options(OperationOptions):
    """Mixes a view with this `probability`: by CutMix with the probability `cutmix_share`, else by mixup.

    Args:
        mixup_alpha, cutmix_alpha: as `alpha` of `mixup` and of `cutmix`.
    """

    name: Literal["mixup-or-cutmix"] = "mixup-or-cutmix"
    mixup_alpha: Alpha = Field(0.8, examples=[0.2])
    cutmix_alpha: Alpha = Field(1.0, examples=[0.5])
    cutmix_share: MixProbability = Field(0.5, examples=[0.0, 1.0])
    probability: MixProbability = Field(1.0, examples=[0.0, 0.5])


@dataclass(frozen=True)
class MixupOrCutmix(MixOrCut):
    """Does to each view what `mixup` does, or what `cutmix` does.

    Columns `share`, 65,536 where the view is cut, and `top`, `left`, `height`, `width`, 0 where it is blended.
    """


def build(options: Options) -> MixupOrCutmix:
    """Make the operation that `options` describe."""
    return MixupOrCutmix(options.mixup_alpha, options.cutmix_alpha, options.cutmix_share, options.probability)
