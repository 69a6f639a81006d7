from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from pipeline.signals.lowpass import lowpass


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(("size", "grid"), [((8, 8), 4), ((7, 5), 3), ((5, 9), 4), ((4, 6), 4), ((8, 6), 1)])
def test_equals_the_weighted_mean_around_every_centre(size: tuple[int, int], grid: int) -> None:
    """Written from the definition, pixel by pixel."""
    maps = random_maps(1, 1, *size)

    def weight(pixel: int, cell: int, length: int) -> float:
        if length <= grid:
            return float(pixel == cell)
        step = length / grid
        deviation = math.sqrt(step**2 - 1) / 2
        return math.exp(-0.5 * ((pixel + 0.5 - (cell + 0.5) * step) / deviation) ** 2)

    result = lowpass(maps, grid, "gaussian")[0, 0]
    for i, j in np.ndindex(*result.shape):
        weights = torch.tensor(
            [[weight(p, i, size[0]) * weight(q, j, size[1]) for q in range(size[1])] for p in range(size[0])],
            dtype=torch.float64,
        )
        wanted = (weights * maps[0, 0]).sum() / weights.sum()
        torch.testing.assert_close(result[i, j], wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("step", [3, 5])
def test_equals_scipys_filter_where_centres_are_pixels(step: int) -> None:
    maps = random_maps(4 * step, 4 * step)
    options = {"sigma": math.sqrt(step**2 - 1) / 2, "mode": "constant", "truncate": 60.0}
    smooth = gaussian_filter(maps.numpy(), **options) / gaussian_filter(np.ones_like(maps.numpy()), **options)
    expected = torch.from_numpy(smooth[step // 2 :: step, step // 2 :: step])
    torch.testing.assert_close(lowpass(maps[None, None], 4, "gaussian")[0, 0], expected, rtol=0, atol=1e-14)


def test_what_does_not_commute_as_its_file_says() -> None:
    maps = random_maps(2, 3, 16, 16)
    four = lowpass(maps, 4, "gaussian")
    assert (lowpass(four, 2, "gaussian") - lowpass(maps, 2, "gaussian")).abs().max() > 1e-3
    assert (four.mean((2, 3)) - maps.mean((2, 3))).abs().max() > 1e-3
    assert (lowpass(maps, 1, "gaussian")[..., 0, 0] - maps.mean((2, 3))).abs().max() > 1e-3


@pytest.mark.parametrize("period", [32, 8, 4])
def test_a_wave_is_damped_as_a_gaussian_damps_it(period: int) -> None:
    """cos(ω x) by exp(-σ² ω² / 2), away from the borders: on cells of four pixels, σ² = 15/4."""
    omega = 2 * math.pi / period
    centre = (torch.arange(32, dtype=torch.float64) + 0.5) * 4 - 0.5
    wave = torch.cos(omega * (torch.arange(128, dtype=torch.float64) - 0.3)).expand(1, 1, 128, 128)
    wanted = math.exp(-15 / 8 * omega**2) * torch.cos(omega * (centre - 0.3))
    inside = lowpass(wave, 32, "gaussian")[0, 0, 5:-5, 5:-5]
    torch.testing.assert_close(inside, wanted[5:-5].expand(22, -1), rtol=0, atol=1e-13)
