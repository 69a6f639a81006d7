"""Builds filters that are a matrix for rows and one for columns."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

Making = Callable[[int, int], Tensor]
"""Makes the matrix of a filter for rows of a size and a grid, on the CPU in float64: [grid, size]."""


def separable(x: Tensor, making: Making, grid_h: int, grid_w: int) -> Tensor:
    """Compute rows @ x @ columns.T for every map of x [B, C, H, W], in at least float32: [B, C, grid_h, grid_w].

    Args:
        making: makes the matrices `rows` [grid_h, H] and `columns` [grid_w, W]. It is a function of its module: what it
            made is kept under it.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows, columns = _matrix(making, x.shape[2], grid_h, x, dtype), _matrix(making, x.shape[3], grid_w, x, dtype)
    result: Tensor = _Separable.apply(x, rows, columns)
    return result


def _matrix(making: Making, size: int, grid: int, x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a matrix where x lies, [grid, size]; made once, since a copy to a device has this process wait for it."""
    if torch.compiler.is_compiling() or type(x) is not Tensor:  # what is traced makes tensors that are worth nothing
        return making(size, grid).to(x.device, dtype)
    return _kept(making, size, grid, x.device, dtype)


@cache  # small ones; a recorded step reads where one lies
def _kept(making: Making, size: int, grid: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):  # the teacher's pass must not leave a matrix that training cannot use
        return making(size, grid).to(device, dtype)


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.dtype, ctx.rows, ctx.columns = x.dtype, rows, columns
        return _products(x.to(rows.dtype), rows, columns)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # Autocast may be on where backward is called, unlike in forward.
        with torch.autocast(grad.device.type, enabled=False):
            spread = _products(grad, ctx.rows.T, ctx.columns.T)
        return spread.to(ctx.dtype), None, None


def _products(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """In the precision of x, and in channels-last order."""
    batch, channels, height, width = x.shape
    lines = rows @ x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    points = columns @ lines.reshape(batch * len(rows), width, channels)
    return points.reshape(batch, len(rows), len(columns), channels).permute(0, 3, 1, 2)
