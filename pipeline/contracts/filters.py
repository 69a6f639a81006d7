"""Tries what every low-pass filter must keep, on one filter."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.signals.lowpass import lowpass

FILTERED_SIZES = ((8, 8), (7, 7), (3, 6), (1, 1), (32, 16))
"""Heights and widths of the maps that filters are tried on."""

TRIED_TYPES = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
}
"""The type of a result, by that of the maps."""


def autocast_off_and_on() -> Iterator[torch.autocast]:
    """Yield what a computation runs in: half precision switched off, and switched on."""
    for enabled in (False, True):
        yield torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


class FilterContract:
    """Holds the checks of one filter.

    Args:
        name: as in a configuration.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def _lowpass(self, x: Tensor, grid: int = 4) -> Tensor:
        return lowpass(x, grid, self._name)

    def the_grid_is_at_most_the_map(self) -> None:
        """Reduce maps of several sizes to one place, and to 4 x 4."""
        for height, width in FILTERED_SIZES:
            for grid in (1, 4):
                got, wanted = (
                    self._lowpass(_maps(2, 3, height, width), grid).shape,
                    (min(grid, height), min(grid, width)),
                )
                what = f"maps of {height} x {width} become {list(got)}, not [2, 3, {wanted[0]}, {wanted[1]}]"
                assert got == (2, 3, *wanted), what

    def constants_stay(self) -> None:
        """Reduce maps that have one value everywhere."""
        for size in FILTERED_SIZES:
            result = self._lowpass(torch.full((1, 2, *size), 2.5, dtype=torch.float64))
            torch.testing.assert_close(result, torch.full_like(result, 2.5))

    def a_map_no_larger_than_the_grid_stays(self) -> None:
        """Reduce small maps."""
        for size in ((2, 2), (4, 4), (4, 1)):
            x = _maps(2, 3, *size)
            assert torch.equal(self._lowpass(x), x), f"a map of {size[0]} x {size[1]} becomes another"

    def an_axis_no_longer_than_the_grid_stays(self) -> None:
        """Reduce maps whose width alone is too large, and the same everywhere."""
        x = _maps(2, 3, 4, 1).expand(-1, -1, -1, 9)
        torch.testing.assert_close(self._lowpass(x), x[..., :4])

    def a_linear_map_of_channels_may_come_before_or_after(self) -> None:
        """Mix the channels before, and after."""
        for size in FILTERED_SIZES:
            x, weight = _maps(2, 5, *size), _maps(3, 5)
            after = torch.einsum("kc,bchw->bkhw", weight, self._lowpass(x))
            torch.testing.assert_close(self._lowpass(torch.einsum("kc,bchw->bkhw", weight, x)), after)

    def it_is_linear(self) -> None:
        """Reduce a weighted sum of maps."""
        a, b = _maps(4, 3, 7, 9).chunk(2)
        torch.testing.assert_close(self._lowpass(2 * a - 3 * b), 2 * self._lowpass(a) - 3 * self._lowpass(b))

    def it_computes_in_at_least_float32(self) -> None:
        """Reduce maps of four types, within autocast too."""
        for given, returned in TRIED_TYPES.items():
            for size in FILTERED_SIZES:
                x = _maps(2, 3, *size).to(given)
                for autocast in autocast_off_and_on():
                    with autocast:
                        result = self._lowpass(x)
                    assert result.dtype == returned, f"maps of {given} become {result.dtype}, not {returned}"
                    torch.testing.assert_close(result.double(), self._lowpass(x.double()), rtol=0, atol=2e-6)

    def it_is_differentiable(self) -> None:
        """Compare gradients with differences."""
        for size in ((8, 8), (7, 5)):
            assert torch.autograd.gradcheck(self._lowpass, _maps(2, 2, *size).requires_grad_(), fast_mode=True)

    def gradients_of_half_types_are_not_rounded_on_the_way(self) -> None:
        """Compute gradients of bfloat16, also by an autocast that is on where backward is called."""
        for size in ((8, 8), (7, 5)):
            x = _maps(2, 3, *size).bfloat16().requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                (gradient,) = torch.autograd.grad((self._lowpass(x) ** 2).sum(), x)
            exact = x.detach().double().requires_grad_()
            (wanted,) = torch.autograd.grad((self._lowpass(exact) ** 2).sum(), exact)
            assert gradient.dtype == torch.bfloat16
            torch.testing.assert_close(gradient.double(), wanted, rtol=2**-8, atol=1e-6)

    def samples_and_memory_layout_make_no_difference(self) -> None:
        """Reduce a sample alone, and maps whose channels are last; compare what was given before and after."""
        for size in FILTERED_SIZES:
            x = _maps(3, 5, *size)
            before, result = x.clone(), self._lowpass(x)
            torch.testing.assert_close(result, self._lowpass(x.to(memory_format=torch.channels_last)))
            torch.testing.assert_close(result[1:2], self._lowpass(x[1:2]))
            assert torch.equal(x, before), "the maps were changed in place"


def _maps(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
