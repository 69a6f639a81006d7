"""Computes the attention map of AT: how much the channels respond at every place, all places together of length one.

    A(i) = Σ_c F(c, i)²,   Q = A / |A|     [H, W]

Zagoruyko and Komodakis, arXiv 1612.03928, with exponent 2. Squares do not commute with low-passing: the map of means is
not the mean of the map. Q rather than A is kept: its values are at most 1, whatever the network's scale, and nothing
that compares attention maps reads their length.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.signals.unit import unit

MAPS = 1


def extract(maps: Tensor) -> Tensor:
    """Compute Q of every sample, [B, H, W].

    Args:
        maps: one, [B, C, H, W].
    """
    attention = maps.square().mean(1)
    return unit(attention.flatten(1), 1).reshape(attention.shape)
