from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pipeline.signals import extract
from pipeline.signals.lowpass import lowpass
from pipeline.signals.overlapping import level_place, levels_of, overlapping_deviations, overlapping_means

SIZES = [(8, 8), (7, 7), (6, 9), (5, 14)]


def maps(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_three_rows_in_two_cells_by_hand():
    # Rows 0 and 1, and rows 1 and 2; two columns, one cell each way.
    x = torch.tensor([[[[0.0, 0.0], [4.0, 4.0], [8.0, 8.0]]]]).repeat(1, 1, 1, 1).double()
    tall = torch.cat((x, x), dim=3)[:, :, :, :4]
    assert overlapping_means(tall, 2).flatten().tolist() == [2, 2, 6, 6]
    # Two of 0 and two of 4: squares of 2, over three.
    expected = math.sqrt(16 / 3 + 1e-5)
    assert overlapping_deviations(tall, 2).flatten().tolist() == pytest.approx([expected] * 4)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_cells_are_those_of_adaptive_pooling_and_the_variance_is_that_of_a_sample(size: tuple[int, int], grid: int):
    x = maps(*size)
    torch.testing.assert_close(overlapping_means(x, grid), F.adaptive_avg_pool2d(x, grid).flatten(2))
    found = overlapping_deviations(x, grid).reshape(2, 3, grid, grid)
    for i in range(grid):
        for j in range(grid):
            rows, columns = (
                slice(math.floor(at * side / grid), math.ceil((at + 1) * side / grid))
                for at, side in zip((i, j), size, strict=True)
            )
            cell = x[:, :, rows, columns].flatten(2).numpy()
            expected = np.sqrt(cell.var(axis=2, ddof=1) + 1e-5)
            np.testing.assert_allclose(found[:, :, i, j], expected, rtol=1e-12)


def test_where_the_grid_divides_the_side_means_are_those_of_low_passed_maps():
    x = maps(8, 8)
    for grid in (1, 2, 4):
        torch.testing.assert_close(overlapping_means(x, grid), lowpass(lowpass(x, 4), grid).flatten(2))
    assert not torch.allclose(overlapping_means(maps(7, 7), 4), lowpass(maps(7, 7), 4).flatten(2))


@pytest.mark.parametrize(
    ("size", "levels", "numbers"), [(7, (1, 2, 4), 21), (4, (1, 2), 5), (2, (1,), 1), (1, (1,), 1)]
)
def test_extra_signals_have_the_grids_that_the_map_has_room_for(size: int, levels: tuple[int, ...], numbers: int):
    x = maps(size, size)
    assert levels_of(*x.shape[2:]) == levels
    deviations, means = (extract(name, x) for name in ("channel-std", "channel-mean"))
    assert deviations.shape == means.shape == (2, 3, numbers)
    for grid in levels:
        assert torch.equal(deviations[:, :, level_place(grid)], overlapping_deviations(x, grid))
        assert torch.equal(means[:, :, level_place(grid)], overlapping_means(x, grid))


def test_a_channel_that_is_constant_and_a_single_place_have_a_small_deviation_and_a_gradient():
    for x in (torch.full((1, 2, 4, 4), 3.0), torch.ones(1, 2, 1, 1)):
        leaf = x.requires_grad_()
        found = extract("channel-std", leaf)
        torch.testing.assert_close(found, torch.full_like(found, math.sqrt(1e-5)))
        found.sum().backward()
        assert leaf.grad is not None
        assert not leaf.grad.any()
