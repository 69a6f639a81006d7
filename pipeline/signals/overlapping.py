"""Computes means and standard deviations of channels in overlapping cells, as adaptive pooling divides a map.

Cell i of g covers the rows from ⌊i H / g⌋ to ⌈(i + 1) H / g⌉ - 1, and columns likewise: whole rows, of which neighbours
share some where g does not divide H. The filter `mean` shares them by area instead; where g divides H both are alike.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LEVELS = (1, 2, 4)
"""The grids that extra signals of cells have, one after the other: 1, 4 and 16 numbers of a channel."""

UNDER_THE_ROOT = 1e-5
"""Added to variances: a channel that is constant has a deviation of 0.003, and a slope there."""


def levels_of(height: int, width: int) -> tuple[int, ...]:
    """Return the grids of `LEVELS` whose cells all have several places, or 1 alone.

    Args:
        height, width: of the map, in places.
    """
    return tuple(grid for grid in LEVELS if fewest_places(height, width, grid) > 1) or LEVELS[:1]


def fewest_places(height: int, width: int, grid: int) -> int:
    """Return how many places the smallest cell of a grid has.

    Args:
        height, width: of the map, in places.
        grid: cells a side.
    """
    rows, columns = (min(int(cell.stop - cell.start) for cell in _cells(size, grid)) for size in (height, width))
    return rows * columns


def level_place(grid: int) -> slice:
    """Return where a grid of `LEVELS` lies among the numbers of a channel, coarser ones first."""
    start = sum(coarser**2 for coarser in LEVELS if coarser < grid)
    return slice(start, start + grid**2)


def overlapping_means(maps: Tensor, grid: int) -> Tensor:
    """Compute the mean of every channel in every cell.

    Args:
        maps: [B, C, H, W].
        grid: cells a side.

    Returns [B, C, grid²], row by row.
    """
    return _in_cells(maps, grid, lambda cell: cell.mean((2, 3)))


def overlapping_deviations(maps: Tensor, grid: int) -> Tensor:
    """Compute √(variance + 10⁻⁵) of every channel in every cell.

    Args:
        maps: [B, C, H, W].
        grid: cells a side.

    Returns [B, C, grid²], row by row. The variance is that of a sample, over n - 1 places; of a single place it is 0.
    """
    return _in_cells(maps, grid, _deviation)


def _deviation(cell: Tensor) -> Tensor:
    several = cell.shape[2] * cell.shape[3] > 1
    return (cell.var((2, 3), correction=int(several)) + UNDER_THE_ROOT).sqrt()


def _in_cells(maps: Tensor, grid: int, compute: Callable[[Tensor], Tensor]) -> Tensor:
    rows, columns = (_cells(size, grid) for size in maps.shape[2:])
    return torch.stack([compute(maps[:, :, row, column]) for row in rows for column in columns], dim=2)


def _cells(size: int, grid: int) -> list[slice]:
    return [slice(i * size // grid, -(-(i + 1) * size // grid)) for i in range(grid)]
