"""Computes the directions of vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(x: Tensor, dim: int) -> Tensor:
    """Divide vectors along an axis by their length; a vector of zeros stays one.

    Args:
        x: of any shape.
        dim: the axis.

    Nothing is 0/0, and the gradient at a vector of zeros is as large as what flows in, not 10¹² times that, as with a
    small constant in the denominator.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / torch.where(length > 0, length, 1)
