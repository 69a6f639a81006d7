from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn, idctn

from pipeline.signals.lowpass import lowpass

SIZES = [(8, 8), (7, 7), (14, 10), (5, 9), (32, 16)]


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [1, 2, 4, 5])
def test_equals_scipys_transforms(size: tuple[int, int], grid: int) -> None:
    maps = random_maps(2, 3, *size)
    low = dctn(maps.numpy(), axes=(2, 3), norm="ortho")[:, :, :grid, :grid]
    expected = idctn(low, axes=(2, 3), norm="ortho") * (low.shape[2] * low.shape[3] / (size[0] * size[1])) ** 0.5
    torch.testing.assert_close(lowpass(maps, grid, "dct"), torch.from_numpy(expected), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("finer", "coarser"), [(4, 2), (4, 3), (5, 4), (4, 1), (3, 1)])
def test_coarser_grids_of_grids_are_grids_of_the_map(size: tuple[int, int], finer: int, coarser: int) -> None:
    maps = random_maps(2, 3, *size)
    twice = lowpass(lowpass(maps, finer, "dct"), coarser, "dct")
    torch.testing.assert_close(twice, lowpass(maps, coarser, "dct"), rtol=0, atol=1e-14)
    torch.testing.assert_close(lowpass(twice, 1, "dct"), maps.mean((2, 3), keepdim=True), rtol=0, atol=1e-14)


def test_a_low_wave_is_the_same_wave_on_the_grid_and_a_high_one_is_gone() -> None:
    """cos(π k (i + 1/2) / H) at the centres of g cells: k < g is kept, up to the amplitude of k > 0; others vanish."""
    place, centre = (torch.arange(12, dtype=torch.float64) + 0.5) / 12, (torch.arange(4, dtype=torch.float64) + 0.5) / 4
    for k in range(12):
        wave = torch.cos(torch.pi * k * place).expand(1, 1, 5, 12)
        wanted = torch.cos(torch.pi * k * centre) if k < 4 else torch.zeros(4, dtype=torch.float64)
        torch.testing.assert_close(lowpass(wave, 4, "dct"), wanted.expand(1, 1, 4, 4), rtol=0, atol=1e-14)


def test_it_rings_as_its_file_says() -> None:
    step = (torch.arange(16) >= 8).double().expand(1, 1, 16, 16)
    assert lowpass(step, 4, "dct").min() < -0.005
