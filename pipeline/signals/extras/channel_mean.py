"""Computes the mean of every channel over the places of overlapping cells: beside `channel-std`, in the same cells.

    μ(c, k) = mean_i F(c, i),   i over the places of cell k     [C, P]

of the whole map, of 2 x 2 cells and of 4 x 4 cells, as `channel-std` has them. Lv, Yang and Li, arXiv 2412.08139
(WKD-F). Low-passed maps have the same means where 4 divides the map's side: this is for sides such as 7 and 14, whose
cells overlap here and are divided by area there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.signals.overlapping import levels_of, overlapping_means

MAPS = 1


def extract(maps: Tensor) -> Tensor:
    """Compute μ of every sample, [B, C, P].

    Args:
        maps: one, [B, C, H, W].
    """
    return torch.cat([overlapping_means(maps, grid) for grid in levels_of(*maps.shape[2:])], dim=2)
