"""Reduces maps to their low frequencies on a small grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline import plugins
from pipeline.errors import during

if TYPE_CHECKING:  # torch takes seconds, and a configuration names filters
    from torch import Tensor

FILTERS = "pipeline.signals.filters"
"""The package whose files are the low-pass filters."""

FILTER_KEY = "signals.features.filter"


def lowpass(x: Tensor, grid: int, filter: str = "mean") -> Tensor:  # noqa: A002 - the word of the configuration
    """Reduce maps to their low frequencies on a grid: [B, C, H, W] to [B, C, min(grid, H), min(grid, W)].

    A map that is no larger than the grid stays as it is. Computed and returned in at least float32, whatever
    autocast says: half types are promoted, float64 is kept. Differentiable, linear in `x`. Raises ConfigError
    for an unknown filter.
    """
    import torch

    module = plugins.load(FILTERS, filter, FILTER_KEY)
    height, width = min(grid, x.shape[2]), min(grid, x.shape[3])
    if x.shape[2:] == (height, width):
        return x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.autocast(x.device.type, enabled=False), during(lambda: f"filter {filter}"):
        result: Tensor = module.lowpass(x, height, width)
    return result
