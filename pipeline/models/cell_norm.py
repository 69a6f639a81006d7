"""Batch normalisation of learned projections."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class CellNorm(_BatchNorm):
    """Batch normalisation over samples and cells, [B, C, ...].

    A single value of a channel has no variance: it is normalised by the running statistics.
    """

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        pass

    def forward(self, x: Tensor) -> Tensor:
        """In the precision of x."""
        if x.numel() > x.shape[1]:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
