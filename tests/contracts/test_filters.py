"""What every low-pass filter must do; finds each file of pipeline/signals/filters by itself."""

from __future__ import annotations

import pytest
import torch

from pipeline import plugins
from pipeline.signals import lowpass

FILTERS = plugins.names("pipeline.signals.filters")
SIZES = [(8, 8), (7, 7), (3, 6), (1, 1), (32, 16)]

pytestmark = pytest.mark.parametrize("name", FILTERS)


def maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("grid", [1, 4])
def test_grid_is_at_most_the_map(name: str, size: tuple[int, int], grid: int) -> None:
    assert lowpass(maps(2, 3, *size), grid, name).shape == (2, 3, min(grid, size[0]), min(grid, size[1]))


@pytest.mark.parametrize("size", SIZES)
def test_constants_stay(name: str, size: tuple[int, int]) -> None:
    result = lowpass(torch.full((1, 2, *size), 2.5, dtype=torch.float64), 4, name)
    torch.testing.assert_close(result, torch.full_like(result, 2.5))


@pytest.mark.parametrize("size", [(2, 2), (4, 4), (4, 1)])
def test_a_map_no_larger_than_the_grid_stays(name: str, size: tuple[int, int]) -> None:
    x = maps(2, 3, *size)
    assert torch.equal(lowpass(x, 4, name), x)


def test_an_axis_no_longer_than_the_grid_stays(name: str) -> None:
    x = maps(2, 3, 4, 1).expand(-1, -1, -1, 9)
    torch.testing.assert_close(lowpass(x, 4, name), x[..., :4])


@pytest.mark.parametrize("size", SIZES)
def test_a_linear_map_of_channels_commutes(name: str, size: tuple[int, int]) -> None:
    x, weight = maps(2, 5, *size), maps(3, 5)
    after = torch.einsum("kc,bchw->bkhw", weight, lowpass(x, 4, name))
    torch.testing.assert_close(lowpass(torch.einsum("kc,bchw->bkhw", weight, x), 4, name), after)


def test_linear(name: str) -> None:
    a, b = maps(4, 3, 7, 9).chunk(2)
    expected = 2 * lowpass(a, 4, name) - 3 * lowpass(b, 4, name)
    torch.testing.assert_close(lowpass(2 * a - 3 * b, 4, name), expected)


@pytest.mark.parametrize(
    ("given", "returned"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_at_least_float32(name: str, given: torch.dtype, returned: torch.dtype) -> None:
    for size in SIZES:
        x = maps(2, 3, *size).to(given)
        for autocast in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                result = lowpass(x, 4, name)
            assert result.dtype == returned
            torch.testing.assert_close(result.double(), lowpass(x.double(), 4, name), rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_differentiable(name: str, size: tuple[int, int]) -> None:
    assert torch.autograd.gradcheck(lambda x: lowpass(x, 4, name), maps(2, 2, *size).requires_grad_())


def test_gradients_of_half_types_are_not_rounded_on_the_way(name: str) -> None:
    """Nor by an autocast that is on where backward is called."""
    for size in [(8, 8), (7, 5)]:
        x = maps(2, 3, *size).bfloat16().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            (gradient,) = torch.autograd.grad((lowpass(x, 4, name) ** 2).sum(), x)
        exact = x.detach().double().requires_grad_()
        (wanted,) = torch.autograd.grad((lowpass(exact, 4, name) ** 2).sum(), exact)
        assert gradient.dtype == torch.bfloat16
        torch.testing.assert_close(gradient.double(), wanted, rtol=2**-8, atol=1e-6)


def test_samples_and_layouts_do_not_matter_and_input_stays(name: str) -> None:
    for size in SIZES:
        x = maps(3, 5, *size)
        before = x.clone()
        result = lowpass(x, 4, name)
        torch.testing.assert_close(result, lowpass(x.to(memory_format=torch.channels_last), 4, name))
        torch.testing.assert_close(result[1:2], lowpass(x[1:2], 4, name))
        assert torch.equal(x, before)
