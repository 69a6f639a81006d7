"""Directions from anchors to samples in two networks, and how well they agree: the arithmetic of CRCD."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

OFFSET = 1e-6
"""Added to every difference, as the reference does: its directions are never 0/0."""

EPSILON = 1e-7
"""The reference's, in denominators."""

CHUNK = 2**23
"""Scores that are in memory at once; beyond that they are computed again for the gradient."""


class Relations:
    """The noise-contrastive loss of all pairs of sample and anchor; the last axis is 1 + m candidates.

    <r, norm(c - a)> = (<r, c> - <r, a>) / |c - a|: differences of candidates and anchors, [B, A, 1 + m, D], are never
    formed. Where c = a there is no direction: `mask` leaves those out, and pairs of a sample with itself, whose
    positive is one of them.

    features: [B, D], unit vectors. bank: [U, D], of which `samples` [B], `anchors` [A] and `candidates` [B, 1 + m] are
    rows.
    """

    def __init__(
        self,
        features: Tensor,
        bank: Tensor,
        samples: Tensor,
        anchors: Tensor,
        candidates: Tensor,
        temperature: float,
        mask: bool,
    ) -> None:
        self.features, self.bank = features, bank.detach().to(features.dtype)
        self.samples, self.anchors, self.candidates = samples, anchors, candidates
        self.temperature, self.mask = temperature, mask
        self.rows = F.pad(self.bank[candidates], (0, 1), value=1.0)
        self.used, self.place = torch.unique(candidates, return_inverse=True)
        self.pairs = int((samples[:, None] != anchors).sum()) if mask else samples.numel() * anchors.numel()

    def normaliser(self, population: int) -> Tensor:
        """N times the mean of exp(score), over all that is not left out."""
        with torch.no_grad():
            sums = [self._sums(chunk) for chunk in self._chunks()]
        return population * torch.stack([total for total, _ in sums]).sum() / sum(count for _, count in sums)

    def loss(self, normaliser: Tensor, population: int) -> Tensor:
        """The mean over pairs, in nats; 0 without pairs."""
        if not self.pairs:
            return self.features.sum() * 0
        noise, chunks = (self.candidates.shape[1] - 1) / population, self._chunks()
        if len(chunks) == 1 or not torch.is_grad_enabled():
            parts = [self._losses(chunk, normaliser, noise) for chunk in chunks]
        else:
            parts = [checkpoint(self._losses, chunk, normaliser, noise, use_reentrant=False) for chunk in chunks]
        return torch.stack(parts).sum() / self.pairs

    def _chunks(self) -> list[Tensor]:
        size = max(1, CHUNK // self.candidates.numel())
        return [self.anchors[start : start + size] for start in range(0, len(self.anchors), size)]

    def _sums(self, anchors: Tensor) -> tuple[Tensor, int]:
        along, scale, left_out = self._scores(anchors)
        q = (along * scale).exp()
        if self.mask:
            kept = ~left_out & (self.samples[:, None] != anchors)[:, :, None]
            return q[kept].sum(), int(kept.sum())
        return q.sum(), q.numel()

    def _losses(self, anchors: Tensor, normaliser: Tensor, noise: float) -> Tensor:
        """The sum over [B, A] of Σ_k log(q_k + n + ε) - log q_0 - m log n."""
        along, scale, left_out = self._scores(anchors)
        logs: Tensor = _LogNoise.apply(along, scale, normaliser, noise + EPSILON)
        positive = along[..., 0] * scale[..., 0] - normaliser.log()
        negatives = along.shape[2] - 1
        if not self.mask:
            return torch.sum(logs - positive - negatives * _log(noise, along))
        # A candidate that is left out has the score 0, by its scale, and so a known part of the sum.
        missing = left_out.sum(2)
        nothing = (1 / normaliser + noise + EPSILON).log()
        losses = logs - missing * nothing - positive - (negatives - missing) * _log(noise, along)
        return torch.sum(losses[self.samples[:, None] != anchors])

    def _scores(self, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factors of the scores <r, r>/τ = along · scale, and whether candidate is anchor: [B, A, 1 + m] each."""
        with torch.autocast(self.features.device.type, enabled=False):
            ends = self.bank[anchors]
            relation = F.normalize(self.features[:, None] - ends + OFFSET, dim=2)
            to_anchor = -(relation * (ends - OFFSET)).sum(2, keepdim=True)
            along = torch.cat((relation, to_anchor), dim=2) @ self.rows.transpose(1, 2)
        same = self.used == anchors[:, None]
        size = (*along.shape[:2], len(self.used))
        at = self.place[:, None].expand(-1, len(anchors), -1)
        scale = (self._inverse_distances(ends) / self.temperature).masked_fill(same, 0.0).expand(size).gather(2, at)
        left_out = same.expand(size).gather(2, at)
        if not self.mask:
            constant = relation.sum(2, keepdim=True) / (relation.shape[2] ** 0.5 * self.temperature)
            along, scale = torch.where(left_out, constant, along), scale.masked_fill(left_out, 1.0)
        return along, scale, left_out

    def _inverse_distances(self, ends: Tensor) -> Tensor:
        """1 / |c - a + offset| of anchors and the candidates that there are, [A, U].

        From differences, not from inner products: where the teacher is sure, gradients vanish and their embeddings all
        but coincide. Rounding would then leave less than nothing of a distance, and the score would have no bound.
        """
        others = self.bank[self.used] + OFFSET
        with torch.autocast(others.device.type, enabled=False):
            distances = torch.cdist(ends, others, compute_mode="donot_use_mm_for_euclid_dist")
        return 1 / distances.clamp(min=1e-6)


def _log(noise: float, like: Tensor) -> Tensor:
    return like.new_tensor(noise).log()


class _LogNoise(torch.autograd.Function):
    """Σ_k log(exp(along · scale) / Z + c), over the last axis, keeping one array instead of five."""

    @staticmethod
    def forward(ctx: Any, along: Tensor, scale: Tensor, normaliser: Tensor, constant: float) -> Tensor:
        p = (along * scale).exp_().div_(normaliser).add_(constant)
        ctx.save_for_backward(p, scale)
        ctx.constant = constant
        return p.log().sum(2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        p, scale = ctx.saved_tensors
        return (1 - ctx.constant / p).mul_(scale).mul_(gradients[0][..., None]), None, None, None
