"""Drops teachers at random for every image, but never the one that the student follows the least there.

After Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", ECCV 2024, arXiv
2408.05088, and the authors' code. Of the teachers' losses L_t(b) of an image b, the largest is kept. Each other one is
left out with probability p, for every image and teacher by itself. With k_t(b) = 1 for what is kept and 0 for what is
left out, T teachers and B images, the sum of the teachers' losses is

    T · Σ_b Σ_t k_t(b) L_t(b) / Σ_b Σ_t k_t(b)

so that its size does not depend on how many are kept; with p = 0 it is the plain sum of the means over the batch.

Deviation. The factor T is ours: their sum is a mean, and the sum of a set of objectives is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from pipeline.objectives.base import Batch

Weighted = tuple[str | None, Tensor]
"""A weighted term, with the name of its teacher: a value of every image, [B]. None for a term that is never dropped."""

_WORD = 2**64
_STRIDE = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)


class TeacherDropping:
    """Chooses which teachers count for which image.

    Args:
        teachers: names of those that may be dropped.
        probability: p, of dropping one that is not the furthest.
        seed: of the choices, which depend on seed, step, sample and view alone: a resumed run makes the same, and the
            order of a batch and its division into parts do not matter.
    """

    def __init__(self, teachers: Iterable[str], probability: float, seed: int) -> None:
        self.teachers, self.probability, self.seed = sorted(set(teachers)), probability, seed

    def total(self, terms: Sequence[Weighted], batch: Batch) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the values to add up, and `dropped/<teacher>`: the share of images for which it was left out.

        Args:
            terms: of a batch, weighted.
            batch: its samples, views and step.

        Nothing waits for the device.
        """
        values = [value for name, value in terms if name is None]
        losses: dict[str, Tensor] = {}
        for name, value in terms:
            if name is not None:
                losses[name] = losses[name] + value if name in losses else value
        if not losses:
            return values, {}
        names = sorted(losses)
        every = torch.stack([losses[name] for name in names])
        furthest = torch.zeros_like(every, dtype=torch.bool).scatter_(0, every.detach().argmax(0, keepdim=True), True)
        kept = furthest | torch.stack([self._spared(self.teachers.index(name), batch) for name in names])
        values.append(len(names) * (every * kept).sum() / kept.sum())
        return values, {f"dropped/{name}": 1 - kept[place].float().mean() for place, name in enumerate(names)}

    def _spared(self, teacher: int, batch: Batch) -> Tensor:
        """Return for which rows chance keeps a teacher, bool [B]."""
        start = 0
        for number in (self.seed, batch.step, teacher):
            start = _mixed(start + number * _STRIDE)
        words = _mixed_rows(batch.sample * _signed(_STRIDE) + _signed(start))
        words = _mixed_rows(words + batch.view * _signed(_STRIDE))
        return (words >> 11) & (2**53 - 1) >= round(self.probability * 2**53)


def _mixed(word: int) -> int:
    """Return a word of 64 bits that changes in about half of its bits where `word` changes in one (splitmix64)."""
    word %= _WORD
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        word = (word ^ (word >> shift)) * factor % _WORD
    return word


def _mixed_rows(words: Tensor) -> Tensor:
    """Return `_mixed` of every one of `words`, int64 [B], which hold the bits of words of 64: products wrap."""
    for shift, factor in zip(_SHIFTS, (*_FACTORS, 1), strict=True):
        words = (words ^ ((words >> shift) & (2 ** (64 - shift) - 1))) * _signed(factor)
    return words


def _signed(word: int) -> int:
    """Return the number of int64 with the bits of a word."""
    return (word + _WORD // 2) % _WORD - _WORD // 2
