"""Builds filters that are a matrix for rows and one for columns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def separable(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Compute rows @ x @ columns.T for every map of x [B, C, H, W], in at least float32: [B, C, h, w].

    Args:
        rows: [h, H]; columns: [w, W]; both in float64, constants to autograd.
    """
    result: Tensor = _Separable.apply(x, rows, columns)
    return result


class _Separable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.dtype, ctx.rows, ctx.columns = x.dtype, rows, columns
        return _products(x.to(torch.promote_types(x.dtype, torch.float32)), rows, columns)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        # Autocast may be on where backward is called, unlike in forward.
        with torch.autocast(grad.device.type, enabled=False):
            spread = _products(grad, ctx.rows.T, ctx.columns.T)
        return spread.to(ctx.dtype), None, None


def _products(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """In the precision of x, and in channels-last order."""
    rows, columns = rows.to(x.device, x.dtype), columns.to(x.device, x.dtype)
    batch, channels, height, width = x.shape
    lines = rows @ x.permute(0, 2, 3, 1).reshape(batch, height, width * channels)
    points = columns @ lines.reshape(batch * len(rows), width, channels)
    return points.reshape(batch, len(rows), len(columns), channels).permute(0, 3, 1, 2)
