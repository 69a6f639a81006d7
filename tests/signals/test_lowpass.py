from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.signals.lowpass import lowpass


def cell_means(maps: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Written from the definition: the integral over each cell of a map that is constant on every pixel."""

    def overlap(pixel: int, cell: int, size: int, cells: int) -> float:
        low, high = Fraction(cell * size, cells), Fraction((cell + 1) * size, cells)
        return float(max(Fraction(0), min(high, Fraction(pixel + 1)) - max(low, Fraction(pixel))))

    out = np.zeros((*maps.shape[:2], height, width))
    area = maps.shape[2] / height * maps.shape[3] / width
    for i in range(height):
        for j in range(width):
            for p in range(maps.shape[2]):
                for q in range(maps.shape[3]):
                    weight = overlap(p, i, maps.shape[2], height) * overlap(q, j, maps.shape[3], width)
                    out[:, :, i, j] += weight / area * maps[:, :, p, q]
    return out


def random_maps(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(
    ("size", "grid"), [((7, 7), 4), ((7, 5), 3), ((8, 8), 4), ((9, 6), 4), ((3, 8), 4), ((1, 1), 4)]
)
def test_equals_the_integral_over_cells(size: tuple[int, int], grid: int) -> None:
    maps = random_maps(2, 3, *size)
    expected = cell_means(maps.numpy(), min(grid, size[0]), min(grid, size[1]))
    np.testing.assert_allclose(lowpass(maps, grid).numpy(), expected, rtol=0, atol=1e-15)


def test_by_hand() -> None:
    # Three pixels in two cells: each takes one pixel and half of the middle one, of 1.5 pixels.
    row = torch.tensor([[[[3.0, 6.0, 12.0]]]])
    torch.testing.assert_close(lowpass(row, 2), torch.tensor([[[[4.0, 10.0]]]]))


@pytest.mark.parametrize(("size", "grid"), [(32, 4), (8, 2), (6, 3), (14, 7), (5, 1)])
def test_equals_adaptive_pooling_where_sizes_divide(size: int, grid: int) -> None:
    maps = random_maps(2, 3, size, size)
    torch.testing.assert_close(lowpass(maps, grid), F.adaptive_avg_pool2d(maps, grid), rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (14, 10), (5, 9)])
def test_coarser_grids_are_means_of_finer_ones(size: tuple[int, int]) -> None:
    maps = random_maps(2, 3, *size)
    four = lowpass(maps, 4)
    torch.testing.assert_close(lowpass(four, 2), lowpass(maps, 2), rtol=0, atol=1e-15)
    torch.testing.assert_close(lowpass(lowpass(four, 2), 1), maps.mean((2, 3), keepdim=True), rtol=0, atol=1e-15)


@pytest.mark.parametrize("size", [(7, 5), (8, 8)])
def test_gradient(size: tuple[int, int]) -> None:
    maps = random_maps(2, 2, *size).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: lowpass(x, 4), maps, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: lowpass(x, 4) ** 2, maps, fast_mode=True)


@pytest.mark.parametrize("size", [(7, 7), (8, 8)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_averaged_in_float32(size: tuple[int, int], dtype: torch.dtype) -> None:
    maps = random_maps(2, 3, *size, dtype=dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = lowpass(maps, 4)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, lowpass(maps.double(), 4).float(), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad((result**2).sum(), maps)
    expected = maps.detach().double().requires_grad_()
    (wanted,) = torch.autograd.grad((lowpass(expected, 4) ** 2).sum(), expected)
    assert gradient.dtype == dtype
    torch.testing.assert_close(gradient.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_autocast_does_not_round_float32_maps() -> None:
    maps = random_maps(2, 3, 7, 7, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(lowpass(maps, 4), lowpass(maps.clone(), 4))
    torch.testing.assert_close(lowpass(maps, 4).double(), lowpass(maps.double(), 4), rtol=0, atol=1e-6)


def test_unknown_filter_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        lowpass(torch.zeros(1, 1, 2, 2), 2, "means")


@pytest.mark.parametrize("name", ["mean", "dct"])
@pytest.mark.parametrize("size", [(8, 8), (7, 7), (3, 6), (32, 16)])
@pytest.mark.parametrize("grid", [1, 3, 4])
def test_the_mean_of_the_grid_is_that_of_the_map(name: str, size: tuple[int, int], grid: int) -> None:
    maps = random_maps(2, 3, *size)
    torch.testing.assert_close(lowpass(maps, grid, name).mean((2, 3)), maps.mean((2, 3)), rtol=0, atol=1e-14)


def test_a_filter_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in every step: that takes longer than small maps do, and cannot be compiled."""
    maps = random_maps(2, 3, 8, 8)
    expected = lowpass(maps, 4, "gaussian")

    def looked_for(*_: object) -> None:
        raise AssertionError("a filter that is known was looked for again")

    monkeypatch.setattr("pipeline.plugins.load", looked_for)
    assert torch.equal(lowpass(maps, 4, "gaussian"), expected)
