"""Adds noise, and removes it in deterministic steps: DDIM (Song, Meng and Ermon, arXiv 2010.02502)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.objectives.base import Batch

TIMES = 1000
"""How many levels of noise there are."""

_LEFT = torch.linspace(1e-4, 0.02, TIMES, dtype=torch.float64).neg().add(1).cumprod(0)
_LEFT_AT = _LEFT.tolist()


def signal_left(times: Tensor) -> Tensor:
    """Return ᾱ_t, the share of signal in the variance at times [...] in 0 ... 999: Π (1 - β), β from 10⁻⁴ to 0.02."""
    return _LEFT.to(times.device)[times]


def noisy(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return √ᾱ_t · clean + √(1 - ᾱ_t) · noise, for tensors [B, ...] and times [B]."""
    return noisy_by(clean, noise, signal_left(times))


def noisy_by(clean: Tensor, noise: Tensor, left: Tensor) -> Tensor:
    """Return √ᾱ · clean + √(1 - ᾱ) · noise, for tensors [B, ...].

    Args:
        clean, noise: of one shape.
        left: the shares ᾱ, [B].
    """
    left = left.to(clean.dtype).reshape(-1, *[1] * (clean.ndim - 1))
    return left.sqrt() * clean + (1 - left).sqrt() * noise


def denoised(x: Tensor, predict: Callable[[Tensor, int], Tensor], steps: int) -> Tensor:
    """Remove from x [B, ...] the noise that `predict(x, time)` finds in it, in `steps` steps.

    The times are the lower half of 2 · steps evenly spaced ones: 400, 300, 200, 100, 0 for five steps.
    """
    spacing = TIMES // (2 * steps)
    for time in range((steps - 1) * spacing, -1, -spacing):
        left, then = _LEFT_AT[time], _LEFT_AT[time - spacing] if time else 1.0
        noise = predict(x, time)
        x = (then / left) ** 0.5 * (x - (1 - left) ** 0.5 * noise) + (1 - then) ** 0.5 * noise
    return x


class RowNoise:
    """Draws random numbers for the rows of a batch, by (seed, step) and a row's rank among its samples and views.

    So the order of the batch does not matter, nor what else draws random numbers.
    """

    def __init__(self, batch: Batch, seed: int) -> None:
        by_view = batch.view.argsort(stable=True)
        order = by_view[batch.sample[by_view].argsort(stable=True)]
        self.rank = order.argsort()
        # A list would become float64 for seeds beyond 2⁶³, as negative ones are here, and lose their last digits.
        key = np.array([seed % 2**64, batch.step], dtype=np.uint64)
        self.generator = np.random.Generator(np.random.Philox(key=key))

    def normal(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers with shape, type and device of `like` [B, ...], independent of earlier ones."""
        drawn = torch.from_numpy(self.generator.standard_normal(like.shape, dtype=np.float32))
        return drawn.to(like)[self.rank]

    def times(self) -> Tensor:
        """Draw a time for each row, uniform in 0 ... 999: [B] int64."""
        return torch.from_numpy(self.generator.integers(TIMES, size=len(self.rank))).to(self.rank.device)[self.rank]
