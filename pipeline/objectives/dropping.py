"""Drops teachers at random in every step, but never the one that the student follows the least.

After Sariyildiz et al., "UNIC: Universal Classification Models via Multi-teacher Distillation", ECCV 2024, arXiv
2408.05088, and the authors' code. Of the teachers' losses L_t of a batch, the largest is kept. Each other one is left
out with probability p. With T teachers, of which K are kept, the sum of their losses is

    (T / K) Σ over kept t of L_t

so that its size does not depend on how many are kept; with p = 0 it is the plain sum.

Deviations. The authors choose for every image; here it is for every batch, since the value of an objective is a mean
over the batch. The factor T is ours: their sum is a mean, and the sum of a set of objectives is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

Weighted = tuple[str | None, Tensor]
"""A weighted term, with the name of its teacher; None for a term that is never dropped."""


class TeacherDropping:
    """Chooses which teachers count in a step.

    Args:
        teachers: names of those that may be dropped.
        probability: p, of dropping one that is not the furthest.
        seed: of the choices, which depend on (seed, step) alone, so that a resumed run makes the same.
    """

    def __init__(self, teachers: Iterable[str], probability: float, seed: int) -> None:
        self.teachers, self.probability, self.seed = sorted(set(teachers)), probability, seed

    def choose(self, terms: Sequence[Weighted], step: int) -> tuple[list[Weighted], dict[str, Tensor]]:
        """Return the terms with those of dropped teachers at 0, and `dropped/<teacher>`: 1 if it was dropped, else 0.

        Args:
            terms: of a batch, weighted.
            step: optimiser steps taken before this one.

        Nothing waits for the device.
        """
        losses: dict[str, Tensor] = {}
        for name, value in terms:
            if name is not None:
                losses[name] = value.detach() + losses.get(name, 0.0)
        if not losses:
            return list(terms), {}
        drawn = dict(zip(self.teachers, self._random(step).random(len(self.teachers)), strict=True))
        names = sorted(losses)
        values = torch.stack([losses[name] for name in names])
        spared = torch.tensor([bool(drawn[name] >= self.probability) for name in names], device=values.device)
        kept = spared | (torch.arange(len(names), device=values.device) == values.argmax())
        factors = kept * (len(names) / kept.sum())
        place = {name: index for index, name in enumerate(names)}
        chosen = [(name, value if name is None else factors[place[name]] * value) for name, value in terms]
        return chosen, {f"dropped/{name}": (~kept[place[name]]).float() for name in names}

    def _random(self, step: int) -> np.random.Generator:
        """Return a generator of this step's choices: of other numbers than those that objectives draw."""
        key = np.array([self.seed % 2**64, step], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(counter=[0, 0, 0, 1], key=key))
