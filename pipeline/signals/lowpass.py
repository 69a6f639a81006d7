"""Reduces maps to their low frequencies on a small grid."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from pipeline import plugins
from pipeline.errors import during

if TYPE_CHECKING:  # torch takes seconds, and a configuration names filters
    from torch import Tensor

FILTERS = "pipeline.signals.filters"
"""The package whose files are the low-pass filters."""

FILTER_KEY = "signals.features.filter"

_FOUND: dict[str, ModuleType] = {}
"""Filters that were found. To look for one in every step takes longer than a small map, and no compiler traces it."""


def find_filter(name: str) -> ModuleType:
    """Find the filter in the file `name`; what was found once is not looked for again.

    Raises ConfigError for an unknown name.
    """
    module = _FOUND.get(name)
    if module is None:
        module = _FOUND[name] = plugins.load(FILTERS, name, FILTER_KEY)
    return module


def lowpass(x: Tensor, grid: int, filter: str = "mean") -> Tensor:  # noqa: A002 - the word of the configuration
    """Reduce maps to their low frequencies on a grid: [B, C, H, W] to [B, C, min(grid, H), min(grid, W)].

    A map that is no larger than the grid stays as it is. Computed and returned in at least float32, whatever
    autocast says: half types are promoted, float64 is kept. Differentiable, linear in `x`. Raises ConfigError
    for an unknown filter.
    """
    import torch

    module = find_filter(filter)
    height, width = min(grid, x.shape[2]), min(grid, x.shape[3])
    if x.shape[2:] == (height, width):
        return x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.autocast(x.device.type, enabled=False), during(lambda: f"filter {filter}"):
        result: Tensor = module.lowpass(x, height, width)
    return result
