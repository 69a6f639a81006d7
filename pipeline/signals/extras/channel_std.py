"""Computes the standard deviation of every channel over places: how much its response varies within an image.

    σ(c, k) = √( var_i F(c, i) + 10⁻⁵ ),   i over the places of cell k     [C, P]

of the whole map, of 2 x 2 cells and of 4 x 4 cells, one after the other: P = 1 + 4 + 16 = 21. Grids are left out that
have a cell of one place: a map of 4 x 4 has P = 5. var is that of a sample, over n - 1 places, and cells are those of
adaptive pooling, which overlap where the grid does not divide the map's side. Lv, Yang and Li, arXiv 2412.08139
(WKD-F). What varies within a cell of a low-passed map is no longer there. Of a map of one place σ is √10⁻⁵.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.signals.overlapping import levels_of, overlapping_deviations

MAPS = 1


def extract(maps: Tensor) -> Tensor:
    """Compute σ of every sample, [B, C, P].

    Args:
        maps: one, [B, C, H, W].
    """
    return torch.cat([overlapping_deviations(maps, grid) for grid in levels_of(*maps.shape[2:])], dim=2)
