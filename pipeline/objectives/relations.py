"""Computes directions from anchors to samples in two networks, and how well they agree, for CRCD."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

OFFSET = 1e-6
"""Added to every difference, as the reference does: its directions are never 0/0."""

ZERO_NORM = 1e-7
"""The reference's, in denominators."""

CHUNK_ELEMENTS = {"cpu": 2**17}
"""Scores that are in memory at once, by kind of device: as many as stay in the cache of a CPU."""

ELSEWHERE = 2**23
"""The same where the cost of launching a kernel counts for more."""

SHORTEST_DISTANCE = 1e-6
"""Of distances, where they divide."""

UNSEEN = 1e30
"""In place of a distance's square: the score is as low as there is one."""

LOWEST = -60.0
"""Of negatives' scores: exp(-60) is nothing beside what it is added to, and exp(-100) takes thirty times as long."""

HIGHEST = 80.0
"""Of negatives' scores, beyond the noise: float32 ends at exp(88)."""


class Relations:
    """Computes the noise-contrastive loss of all pairs of sample and anchor, over 1 + m candidates, and its gradient.

    <f - a, c - a> = (|f - a|² + |c - a|² - |f - c|²) / 2: B · A · m sums from small tables of distances, where
    differences are D times as many. Distances are as exact as those of differences: inner products in float32 would
    lose them if rows are nearly equal, as the gradients of a sure teacher are. The gradient is taken along
    with the value, so that scores are not kept.

    Where c = a there is no direction: `mask` leaves those out, and pairs of a sample with itself, whose positive is one
    of them. Without it their direction is that of the offset.

    Args:
        features: [B, D], unit vectors.
        bank: [B + P, D], of the samples themselves, and of a pool.
        numbers: [B + P], those of the samples in `bank`: which rows are of the same one.
        anchors: [A], rows of `bank`.
        negatives: [B, m], places in the pool.
        temperature: divides the scores.
        shared: whether no place comes twice in a row of `negatives`, and rows share most of them.
    """

    def __init__(
        self,
        features: Tensor,
        bank: Tensor,
        numbers: Tensor,
        anchors: Tensor,
        negatives: Tensor,
        temperature: float,
        mask: bool,
        shared: bool,
    ) -> None:
        self.features, self.mask, self.temperature = features, mask, temperature
        self.negatives = negatives.shape[1]
        own, rest = numbers[: len(features)], numbers[len(features) :]
        self.itself, self.same = own[:, None] == numbers[anchors], rest == numbers[anchors][:, None]
        self.kept = ~self.itself if mask else torch.ones_like(self.itself)
        self.pairs = self.kept.sum()
        with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
            self._tables(features.detach(), bank.detach().to(features.dtype), anchors, negatives, shared)

    def normaliser(self, population: int) -> Tensor:
        """Return N times the mean of exp(score), over all scores that are not left out; NaN without any.

        Args:
            population: N.
        """
        with torch.no_grad(), torch.autocast(self.features.device.type, enabled=False):
            sums = []
            for chunk, scores, _ in self._chunks(self.x.new_full((), 1 / self.temperature)):
                left_out = self._select(self.same, chunk)
                if not self.mask:
                    left_out = left_out & ~self._anchors_seen(chunk)
                sums.append(scores.exp_().masked_fill_(left_out, 0.0).sum(2))
            total, count = torch.cat(sums, dim=1) + self.positive.exp(), 1 + self.negatives - self.missing
            return population * (total * self.kept).sum() / (count * self.kept).sum()

    def loss(self, normaliser: Tensor, population: int) -> Tensor:
        """Compute the mean loss over pairs, in nats; 0 without pairs.

        Args:
            normaliser: as `normaliser` returns it.
            population: N.
        """
        normaliser = torch.where(self.pairs > 0, normaliser, 1.0)
        with torch.no_grad(), torch.autocast(self.features.device.type, enabled=False):
            value, gradient = self._value_and_gradient(normaliser, self.negatives / population)
        loss: Tensor = _Known.apply(self.features, value, gradient)
        return loss

    def _tables(self, features: Tensor, bank: Tensor, anchors: Tensor, place: Tensor, shared: bool) -> None:
        """What is the same for all scores of a row, a column or a place: at most [B, U], [A, U] and [B, A]."""
        ends = bank[anchors]
        # Amid the anchors: sums of what lies on both sides of it round less. Sorted, since on CUDA `median` is not the
        # same in each run.
        origin = ends.sort(dim=0).values[(len(ends) - 1) // 2]
        self.x, self.rows, self.own = features - origin, bank[len(features) :] - origin, bank[: len(features)] - origin
        self.ends = ends - origin - OFFSET
        to_anchors, of_own = _distances(self.x, self.ends), _distances(self.own, self.ends)
        of_rows = _distances(self.ends, self.rows)
        self.near = 1 / to_anchors.clamp(min=SHORTEST_DISTANCE)
        self.far = (1 / (of_rows.clamp(min=SHORTEST_DISTANCE) * self.temperature)).masked_fill_(self.same, 0.0)
        self.own_far = (1 / (of_own.clamp(min=SHORTEST_DISTANCE) * self.temperature)).masked_fill_(self.itself, 0.0)

        self.rest, self.across, own = (each.square() / 2 for each in (to_anchors, of_rows, of_own))
        self.along = _distances(self.x, self.rows).square_().div_(2)
        # <norm(x), (1, ..., 1) / √D> / τ, where a candidate is the anchor.
        self.unit = self.near / (features.shape[1] ** 0.5 * self.temperature)
        self.constant = self.unit * (self.x.sum(1, keepdim=True) - self.ends.sum(1))
        positive = own + self.rest - (self.x - self.own).square().sum(1, keepdim=True) / 2
        self.positive = (positive * self.near * self.own_far).clamp_(-1 / self.temperature, 1 / self.temperature)
        if not self.mask:
            self.positive = torch.where(self.itself, self.constant, self.positive)

        # Rows that share most of their negatives look at all of them, and see nothing of those that are not theirs;
        # others each select their own.
        counts = torch.zeros_like(self.along).scatter_add_(1, place, torch.ones_like(place, dtype=bank.dtype))
        self.place = None if shared else place
        self.along = self.along.masked_fill_(counts == 0, UNSEEN) if shared else self.along.gather(1, place)
        # How often a negative is the anchor, and one that is not a sample's own is: there `far` makes scores 0.
        same = self.same.to(bank.dtype)
        found = counts @ same.T
        self.missing = found if self.mask else torch.zeros_like(found)
        self.hidden = same.sum(1) - found if shared else torch.zeros_like(found)

    def _value_and_gradient(self, normaliser: Tensor, noise: float) -> tuple[Tensor, Tensor]:
        """The mean over pairs of Σ_k log(q_k + n + ε) - log q_0 - m log n, and what it is per feature, [B, D]."""
        level = (noise + ZERO_NORM) * normaliser
        most = (level.log() + HIGHEST).clamp(max=1 / self.temperature)
        near = self.near * self.kept
        logs, turns, pulls, towards = [], [], [], torch.zeros_like(self.along)
        upwards = torch.zeros_like(near)
        for chunk, scores, far in self._chunks(most):
            share = scores.exp().div_(level)
            sums = share + 1
            share.div_(sums)
            logs.append(sums.log_().sum(2))  # log1p takes eight times as long
            if not self.mask:
                upwards[:, chunk] = torch.where(self._anchors_seen(chunk), share, 0).sum(2)
            turns.append(scores.mul_(share).sum(2))
            share.mul_(far).mul_(near[:, chunk, None])
            pulls.append(share.sum(2))
            towards += share.sum(1)
        below = level.log() - self.positive
        losses = torch.cat(logs, dim=1) - (self.missing + self.hidden) * (1 / level).log1p()
        losses += (self.negatives - self.missing) * math.log1p(ZERO_NORM / noise) + F.softplus(below)

        drive = -below.sigmoid() * self.kept
        turn = (torch.cat(turns, dim=1) * self.kept + drive * self.positive) * self.near.square()
        attract = drive * self.near * self.own_far
        back = torch.cat(pulls, dim=1) + attract - turn
        gradient = self._spread(towards) @ self.rows + attract.sum(1, keepdim=True) * self.own
        gradient -= back @ self.ends + turn.sum(1, keepdim=True) * self.x
        if not self.mask:
            gradient += ((upwards + drive * self.itself) * self.unit).sum(1, keepdim=True)
        pairs = self.pairs.clamp(min=1)
        return losses.masked_fill(~self.kept, 0).sum() / pairs, gradient / pairs

    def _chunks(self, most: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Anchors, the scores <r, r>/τ of all samples with them and their negatives, [B, a, k], and 1 / (τ |c - a|).

        Rounding does not lead beyond `most`, what a cosine can be.
        """
        # Of one dimension: tensors of none would be taken for numbers, and to have a number is to wait for it.
        lowest, most = most.new_full((1,), LOWEST), most.reshape(1)
        size = max(1, CHUNK_ELEMENTS.get(self.x.device.type, ELSEWHERE) // self.along.numel())
        for start in range(0, len(self.ends), size):
            chunk = slice(start, start + size)
            far = self._select(self.far, chunk)
            scores = self._select(self.across, chunk) - self.along[:, None]
            scores.add_(self.rest[:, chunk, None]).mul_(far).mul_(self.near[:, chunk, None])
            if not self.mask:
                scores = torch.where(self._anchors_seen(chunk), self.constant[:, chunk, None], scores)
            yield chunk, scores.clamp_(lowest, most), far

    def _anchors_seen(self, chunk: slice) -> Tensor:
        """Where a sample's negative is the anchor, [B, a, k]."""
        return self._select(self.same, chunk) & (self.along < UNSEEN)[:, None]

    def _select(self, table: Tensor, chunk: slice) -> Tensor:
        """Of a table [A, U] the columns that each sample looks at: [B or 1, a, k]."""
        return table[None, chunk] if self.place is None else table[chunk][:, self.place].transpose(0, 1)

    def _spread(self, values: Tensor) -> Tensor:
        """Back from what each sample looks at to all that is used: [B, U]."""
        if self.place is None:
            return values
        return values.new_zeros(len(values), len(self.rows)).scatter_add_(1, self.place, values)


def _distances(ones: Tensor, others: Tensor) -> Tensor:
    """|x - y| of all pairs, [X, Y]. For float32 from inner products in float64: as exact as differences, and faster."""
    if ones.dtype == torch.float64:
        return torch.cdist(ones, others, compute_mode="donot_use_mm_for_euclid_dist")
    x, y = ones.double(), others.double()
    squares = (x.square().sum(1, keepdim=True) + y.square().sum(1)).addmm_(x, y.T, alpha=-2)
    return squares.clamp_(min=0).sqrt_().to(ones.dtype)


class _Known(torch.autograd.Function):
    """A value whose gradient with respect to `features` is known already."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None, None
