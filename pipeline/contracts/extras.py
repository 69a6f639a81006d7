"""Tries what every extra signal must keep, on one."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.contracts.checks import NotTried
from pipeline.contracts.filters import TRIED_TYPES, autocast_off_and_on
from pipeline.signals import extract, maps_read

TRIED_BLOCKS = ((4, 8), (6, 4), (5, 4), (3, 2))
"""Channels and sides of the maps that extra signals are tried on, shallow to deep."""


class ExtraContract:
    """Holds the checks of one extra signal.

    Args:
        name: as in a configuration, without its block.
    """

    def __init__(self, name: str) -> None:
        self._name, self._count = name, maps_read(name)

    def _extract(self, *maps: Tensor) -> Tensor:
        return extract(self._name, *maps)

    def _maps(self, batch: int = 3, scale: float = 1.0) -> list[Tensor]:
        if self._count > len(TRIED_BLOCKS):
            raise NotTried(f"it reads {self._count} maps, and {len(TRIED_BLOCKS)} are tried at most")
        generator = torch.Generator().manual_seed(1)
        shapes = [(batch, channels, side, side) for channels, side in TRIED_BLOCKS[: self._count]]
        return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]

    def every_sample_is_by_itself(self) -> None:
        """Compute it of samples alone."""
        given = self._maps()
        result = self._extract(*given)
        assert result.ndim >= 2, f"it is {list(result.shape)}, not [B, ...]"
        for row in range(3):
            torch.testing.assert_close(self._extract(*(x[row : row + 1] for x in given)), result[row : row + 1])

    def it_computes_in_at_least_float32(self) -> None:
        """Compute it of maps of four types, within autocast too."""
        for given, returned in TRIED_TYPES.items():
            maps = [x.to(given) for x in self._maps()]
            exact = self._extract(*(x.double() for x in maps))
            for autocast in autocast_off_and_on():
                with autocast:
                    result = self._extract(*maps)
                assert result.dtype == returned, f"of maps of {given} it is {result.dtype}, not {returned}"
                torch.testing.assert_close(result.double(), exact, rtol=1e-5, atol=1e-6)

    def values_and_gradients_are_finite(self) -> None:
        """Compute both of maps of zeros, of small and of large values."""
        for scale in (0.0, 1e-4, 1e4):
            given = [x.float().requires_grad_() for x in self._maps(scale=scale)]
            result = self._extract(*given)
            weights = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
            found = torch.autograd.grad((result * weights).sum(), given)
            where = f"of maps of magnitude {scale:g}"
            assert result.isfinite().all(), f"{where} it is not finite"
            assert all(each.isfinite().all() for each in found), f"{where} gradients are not finite"

    def it_is_differentiable(self) -> None:
        """Compare gradients with differences."""
        given = [x.requires_grad_() for x in self._maps(batch=2)]
        assert torch.autograd.gradcheck(self._extract, given, fast_mode=True)

    def memory_layout_makes_no_difference(self) -> None:
        """Compute it of maps whose channels are last; compare what was given before and after."""
        given = self._maps()
        before, result = [x.clone() for x in given], self._extract(*given)
        torch.testing.assert_close(self._extract(*(x.to(memory_format=torch.channels_last) for x in given)), result)
        assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True)), "the maps were changed in place"
