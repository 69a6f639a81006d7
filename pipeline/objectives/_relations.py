"""Directions from anchors to samples in two networks, and how well they agree: the arithmetic of CRCD."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

OFFSET = 1e-6
"""Added to every difference, as the reference does: its directions are never 0/0."""

CHUNK = 2**22
"""Scores that are in memory at once; beyond that they are computed again for the gradient."""


class Relations:
    """The scores of all pairs and candidates, a chunk of anchors at a time.

    <r, norm(c - a)> = (<r, c> - <r, a>) / |c - a|: differences of candidates and anchors, [B, B, 1 + m, D], are never
    formed. Where c = a, rounding would leave anything: those scores are set to what the reference makes of them.
    """

    def __init__(
        self, features: Tensor, bank: Tensor, samples: Tensor, candidates: Tensor, temperature: float, mask: bool
    ) -> None:
        bank = bank.detach().to(features.dtype)
        self.features, self.samples, self.candidates = features, samples, candidates
        self.temperature, self.mask = temperature, mask
        self.anchors, self.rows = bank[samples], bank[candidates]
        used, self.place = torch.unique(candidates, return_inverse=True)
        self.used = bank[used]
        self.pairs = int((samples[:, None] != samples).sum()) if mask else len(samples) ** 2

    def normaliser(self, population: int) -> Tensor:
        """N times the mean of exp(score) over all that is kept."""
        with torch.no_grad():
            total = self.reduce(lambda scores, kept: (scores.exp() * kept).sum())
            count = self.reduce(lambda scores, kept: kept.sum())
        return population * total / count.clamp(min=1)

    def reduce(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """The sum of a function of scores and what is kept of them, both [B, A, 1 + m], over chunks of anchors."""
        size = max(1, CHUNK // self.candidates.numel())
        chunks = range(0, len(self.samples), size)
        if len(chunks) == 1 or not torch.is_grad_enabled():
            parts = [function(*self._scores(slice(start, start + size))) for start in chunks]
        else:
            parts = [
                checkpoint(lambda at: function(*self._scores(at)), slice(start, start + size), use_reentrant=False)
                for start in chunks
            ]
        return torch.stack(parts).sum()

    def _scores(self, at: slice) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.features.device.type, enabled=False):
            anchors, width = self.anchors[at], self.features.shape[1]
            relation = F.normalize(self.features[:, None] - anchors + OFFSET, dim=2)
            along = relation @ self.rows.transpose(1, 2) - (relation * (anchors - OFFSET)).sum(2, keepdim=True)
            distance = self._distances(anchors)
            same = self.candidates[:, None] == self.samples[at][:, None]
            constant = relation.sum(2, keepdim=True) / width**0.5
            scores = torch.where(same, constant, along / distance) / self.temperature
        if not self.mask:
            return scores, torch.ones_like(scores)
        own = self.samples[:, None] == self.samples[at]
        return scores, (~same & ~own[..., None]).to(scores.dtype)

    def _distances(self, anchors: Tensor) -> Tensor:
        """|c - a + offset| of every candidate and anchor, [B, A, 1 + m]; 1 where it is next to nothing."""
        used, sums = self.used, self.used.sum(1)[:, None] - anchors.sum(1)
        squares = used.square().sum(1)[:, None] + anchors.square().sum(1) - 2 * used @ anchors.T
        squares = squares + 2 * OFFSET * sums + used.shape[1] * OFFSET**2
        return squares.clamp(min=1e-12).sqrt()[self.place].transpose(1, 2)
