"""Weights a map by a Gaussian around the centre of each of g x g cells: the mean is the value of the cell.

Cells are s = H / g pixels high, and cell i of them has its centre at row (i + 1/2) s - 1/2. Its value is the mean
of all rows, weighted by a Gaussian around that centre with standard deviation

    σ = sqrt(s² - 1) / 2 pixels,

divided by the sum of the weights within the map, so that constants stay at borders too; columns alike. A pixel counts
as a Gaussian of half its own width, and an output as one of half a cell: variances add, (1/2)² + σ² = (s/2)². So an
axis that is not reduced (s = 1) is left as it is.

What commutes with it: linear maps of channels, and nothing else that we rely on. Coarser grids do NOT (the grid of a
grid is smoother than the grid of the map), and the mean of the grid is NOT the mean of the map: rows near a border
weigh more or less than others. Objectives that read the embedding off the cached map need `mean` or `dct`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.signals.filters._separable import separable


def lowpass(x: Tensor, grid_h: int, grid_w: int) -> Tensor:
    """Compute the weighted means [B, C, grid_h, grid_w] of x [B, C, H, W], in at least float32."""
    return separable(x, _weights, grid_h, grid_w)


def _weights(size: int, grid: int) -> Tensor:
    """The weights [grid, size] of every row in every cell's mean."""
    if size == grid:
        return torch.eye(size, dtype=torch.float64)
    step = size / grid
    centre = (torch.arange(grid, dtype=torch.float64) + 0.5) * step - 0.5
    distance = torch.arange(size, dtype=torch.float64) - centre[:, None]
    variance = (step**2 - 1) / 4
    return torch.softmax(-(distance**2) / (2 * variance), dim=1)
