"""Defines the precision in which objectives compute."""

from __future__ import annotations

import torch
from torch import Tensor


def precise(x: Tensor) -> Tensor:
    """Return x in at least float32: half types are promoted, float64 is kept."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
