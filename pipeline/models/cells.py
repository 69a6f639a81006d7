"""Builds layers of learned projections, over the cells of maps."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class CellNorm(_BatchNorm):
    """Normalises batches over samples and cells, [B, C, ...].

    A single value of a channel has no variance: it is normalised by the running statistics.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Normalise in the precision of x."""
        if x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class Convolution(nn.Module):
    """Computes a convolution that keeps the grid, and a batch normalisation in place of its bias.

    Args:
        channels, width: of input and output.
        size: of the kernel.
    """

    def __init__(self, channels: int, width: int, size: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, width, size, padding=size // 2, bias=False)
        self.norm = CellNorm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [B, C, h, w] to [B, width, h, w]; autocast rules the convolution, its weights' precision the norm.

        Args:
            maps: in any precision.
        """
        result: Tensor = self.norm(self.linear(maps).to(self.linear.weight.dtype))
        return result
