"""Computes the channel Gram matrix of ICKD: how similar the places are at which two channels respond.

    G = F Fᵀ,   Ĝ(c) = G(c) / |G(c)|   (row by row)     [C, C]

F is a map as [C, H W]. Liu et al., arXiv 2202.03680. Products do not commute with low-passing. Ĝ rather than G is kept:
its values are at most 1, and every row keeps its precision, however faint the channel (int8 has a scale for each). A
row of a channel of zeros is zeros.

C² values: 4,096 for 64 channels, four times their map on a 4 x 4 grid, and a million for 1,024: not for every network.
"""

from __future__ import annotations

from torch import Tensor

from pipeline.signals.unit import unit

MAPS = 1


def extract(maps: Tensor) -> Tensor:
    """Compute Ĝ of every sample, [B, C, C].

    Args:
        maps: one, [B, C, H, W].
    """
    rows = maps.flatten(2)
    return unit(rows @ rows.transpose(1, 2), 2)
