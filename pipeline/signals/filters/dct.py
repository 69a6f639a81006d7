"""Keeps the lowest g x g frequencies of a discrete cosine transform, as the g x g map that has just these.

With C_n the orthonormal DCT-II of n rows, rows become sqrt(g / H) C_gᵀ (C_H)[:g], columns alike: transform, keep the
lowest g coefficients, transform back to g rows. The root keeps values: a constant map stays the same constant.

What commutes with it: every coarser grid (cutting g coefficients to h is cutting all of them to h: 4 -> 2 and 4 -> 3
are exact, for maps of any size), the global mean (the grid of 1, and the mean of any grid), and linear maps of
channels. Frequencies are cut sharply, so an edge rings: the grid of a map that is nowhere negative may be negative.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pipeline.signals.filters._separable import separable


def lowpass(x: Tensor, grid_h: int, grid_w: int) -> Tensor:
    """Keep the low frequencies [B, C, grid_h, grid_w] of x [B, C, H, W], in at least float32."""
    return separable(x, _matrix, grid_h, grid_w)


def _matrix(size: int, grid: int) -> Tensor:
    """[grid, size]: forward, cut, and back at the other size."""
    return math.sqrt(grid / size) * _cosines(grid, grid).T @ _cosines(grid, size)


def _cosines(count: int, size: int) -> Tensor:
    """The lowest `count` rows of the orthonormal DCT-II: [count, size]."""
    frequency = torch.arange(count, dtype=torch.float64)[:, None]
    place = torch.arange(size, dtype=torch.float64) + 0.5
    waves = math.sqrt(2 / size) * torch.cos(math.pi / size * place * frequency)
    waves[0] = math.sqrt(1 / size)
    return waves
