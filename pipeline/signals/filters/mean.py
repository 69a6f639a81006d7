"""Computes area-weighted means over exact cells: cell i of g covers the rows from i H / g to (i + 1) H / g.

Cells at a boundary that is no whole row share that row by area. So coarser grids are exact means of finer
ones (4 -> 2 -> 1 -> the global mean) for maps of any size, 7 x 7 too, where adaptive pooling's overlapping
cells are not. Where sizes divide, both are the same.

What commutes with it: coarser grids of whole cells (4 -> 2, 6 -> 3, anything -> 1; not 4 -> 3), the global mean,
and linear maps of channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.signals.filters._separable import separable


def lowpass(x: Tensor, grid_h: int, grid_w: int) -> Tensor:
    """Compute the means [B, C, grid_h, grid_w] of x [B, C, H, W], in at least float32."""
    height, width = x.shape[2:]
    if height % grid_h or width % grid_w:
        return separable(x, _cells, grid_h, grid_w)
    result: Tensor = _WholeCells.apply(x, grid_h, grid_w)
    return result


class _WholeCells(torch.autograd.Function):
    """The means where cells are whole pixels, with a gradient of its own.

    Autograd's would save the promoted map and copy between layouts. Measured on 2 CPU cores, forward and
    backward of bfloat16 channels-last maps [128, 16, 32, 32], [128, 32, 16, 16] and [128, 64, 8, 8] to 4 x 4:
    8 ms by autograd through two matrix products, 9 ms through `avg_pool2d`, 2.5 ms here.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid_h: int, grid_w: int) -> Tensor:
        ctx.size, ctx.dtype = x.shape[2:], x.dtype
        height, width = x.shape[2:]
        return F.avg_pool2d(x.to(torch.promote_types(x.dtype, torch.float32)), (height // grid_h, width // grid_w))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (height, width), (grid_h, grid_w) = ctx.size, grad.shape[2:]
        # All of a cell has one gradient: brought into the map's own type while small, then copied.
        small = (grad * (grid_h * grid_w / (height * width))).to(ctx.dtype).permute(0, 2, 3, 1)
        batch, _, _, channels = small.shape
        cells = small[:, :, None, :, None, :].expand(-1, -1, height // grid_h, -1, width // grid_w, -1)
        return cells.reshape(batch, height, width, channels).permute(0, 3, 1, 2), None, None


def _cells(size: int, grid: int) -> Tensor:
    """The weights [grid, size] of every row in every cell's mean. Rows are counted in grid-ths: exact."""
    row = torch.arange(size)
    cell = torch.arange(grid)[:, None]
    overlap = torch.minimum((row + 1) * grid, (cell + 1) * size) - torch.maximum(row * grid, cell * size)
    return overlap.clamp(min=0).double() / size
