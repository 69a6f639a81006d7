"""Applies the operations of RandAugment and TrivialAugment to a batch, by number and level.

Levels are whole numbers from -(bins - 1) to bins - 1. What a level means is computed in fractions and rounded once:
coefficients to 2^-30, factors to 2^-16, shifts to whole pixels towards zero, thresholds up.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.views.operations import _affine, _color, _levels, _sines
from pipeline.views.operations._chosen import change_chosen_, constants

NAMES = (
    *("identity", "shear-x", "shear-y", "translate-x", "translate-y", "rotate", "brightness", "color", "contrast"),
    *("sharpness", "posterize", "solarize", "auto-contrast", "equalize"),
)
"""What the numbers of operations stand for, in torchvision's order."""

SIGNED = tuple(NAMES.index(name) for name in NAMES if name.split("-")[0] in ("shear", "translate", "rotate")) + tuple(
    NAMES.index(name) for name in ("brightness", "color", "contrast", "sharpness")
)
"""The operations whose levels have a sign."""

_GEOMETRY = range(NAMES.index("shear-x"), NAMES.index("rotate") + 1)
_BY_FACTOR = {
    "brightness": _color.adjust_brightness,
    "color": _color.adjust_saturation,
    "contrast": _color.adjust_contrast,
    "sharpness": _levels.sharpness,
}


@dataclass(frozen=True)
class Space:
    """Defines what the highest level of each operation means.

    Args:
        shear: pixels aside for a pixel along.
        translate: a part of the side, or `pixels`.
        degrees: of a turn.
        factor: what a factor differs from one.
        bits: how many bits are dropped.
    """

    shear: Fraction
    translate: Fraction
    pixels: bool
    degrees: int
    factor: Fraction
    bits: int


class _Meanings(NamedTuple):
    """What each level means, from the least on."""

    shears: list[int]
    sines: list[int]
    cosines: list[int]
    factors: list[int]
    bits: list[int]
    thresholds: list[int]


@functools.cache  # a few dozen sines and fractions, the same for the same space
def _meanings(space: Space, bins: int) -> _Meanings:
    parts = [Fraction(level, bins - 1) for level in range(1 - bins, bins)]
    angles = [_sines.sine_and_cosine(Fraction(space.degrees, 360) * part) for part in parts]
    return _Meanings(
        shears=[round(space.shear * part * _affine.ONE) for part in parts],
        sines=[sine for sine, _ in angles],
        cosines=[cosine for _, cosine in angles],
        factors=[_color.ONE + round(space.factor * part * _color.ONE) for part in parts],
        bits=[round(8 - space.bits * abs(part)) for part in parts],
        thresholds=[math.ceil(255 * (1 - abs(part))) for part in parts],
    )


@dataclass(frozen=True)
class Augmenter:
    """Applies operations of a space with `bins` levels.

    Args:
        sampling: how turned and sheared images are sampled.
        fill: the level outside the image.
    """

    space: Space
    bins: int
    sampling: _affine.Sampling
    fill: int

    def change_(self, images: Tensor, operation: Tensor, level: Tensor) -> None:
        """Apply to each image its operation at its level, [B], in place: `images` uint8 [B, C, H, W]."""
        meanings, place = _meanings(self.space, self.bins), level.to(torch.int64) + (self.bins - 1)
        factor, bits, threshold = (
            constants(values, images, torch.int32)[place]
            for values in (meanings.factors, meanings.bits, meanings.thresholds)
        )
        geometry = (operation >= _GEOMETRY.start) & (operation < _GEOMETRY.stop)
        change_chosen_(images, geometry, self._transformed, self._matrix(images, operation, level))
        for name, change in _BY_FACTOR.items():
            change_chosen_(images, operation == NAMES.index(name), change, factor)
        change_chosen_(images, operation == NAMES.index("posterize"), _levels.posterize, bits)
        change_chosen_(images, operation == NAMES.index("solarize"), _levels.solarize, threshold)
        change_chosen_(images, operation == NAMES.index("auto-contrast"), _levels.autocontrast)
        change_chosen_(images, operation == NAMES.index("equalize"), _levels.equalize)

    def _transformed(self, images: Tensor, matrix: Tensor) -> Tensor:
        return _affine.transform(images, matrix, self.sampling, self.fill)

    def _matrix(self, images: Tensor, operation: Tensor, level: Tensor) -> Tensor:
        """The matrices of `_affine.transform`, [B, 6]; those of operations that are no geometry mean nothing."""
        (H, W), meanings = images.shape[2:], _meanings(self.space, self.bins)
        level = level.to(torch.int64)
        shear, sine, cosine = (
            constants(values, images)[level + (self.bins - 1)]
            for values in (meanings.shears, meanings.sines, meanings.cosines)
        )
        zero, one = torch.zeros_like(sine), torch.full_like(sine, _affine.ONE)

        def shift(side: int) -> Tensor:
            farthest = self.space.translate * (1 if self.space.pixels else side) / (self.bins - 1)
            return torch.div(-level * farthest.numerator, farthest.denominator, rounding_mode="trunc") * _affine.ONE

        # A shear leaves the upper or left edge where it is, as torchvision's.
        matrices = [
            [one, shear, shear * H // 2, zero, one, zero],
            [one, zero, zero, shear, one, shear * W // 2],
            [one, zero, shift(W), zero, one, zero],
            [one, zero, zero, zero, one, shift(H)],
            [cosine, -sine, zero, sine, cosine, zero],
        ]
        stacked = torch.stack([torch.stack(matrix, 1) for matrix in matrices])
        chosen = (operation.to(torch.int64) - _GEOMETRY.start).clamp(0, len(matrices) - 1)
        return stacked[chosen, torch.arange(len(chosen), device=chosen.device)]
