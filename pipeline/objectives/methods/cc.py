"""CC: networks err alike about different samples as little as possible.

Peng et al., "Correlation Congruence for Knowledge Distillation", ICCV 2019, arXiv 1904.01802, as RepDistiller has it,
whose code came from the authors. e_s, e_t are learned linear embeddings of both networks' embeddings, δ(b) = |e_s(b) -
e_t(b)| elementwise:

    L = mean over pairs (a, b) of Σ_d δ_d(a) δ_d(b)

Neither the paper's kernel nor its sampler is in that code, which takes pairs (b, b + 1): neighbours in the batch. Here
the pairs are all of different samples, which is the mean over all orders of the batch: same expectation, no dependence
on the order, at B D operations. `pairs: neighbours` is the code's. Recipe of RepDistiller: weight 0.02 beside hard
labels. Both embeddings are learned, and nothing in L keeps them from agreeing on a constant. A batch of one sample has
no pair: L is 0. Exact from a cache.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Objective
from pipeline.objectives.embedding import EMBEDDINGS, embeddings
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.signals import Signals, SignalShapes

READS = ("embedding",)


class Options(Section):
    """embedding_width: D. pairs: all, or neighbours in the batch as in the reference's code."""

    embedding_width: int = Field(128, gt=0)
    pairs: Literal["all", "neighbours"] = "all"


def congruence(student: Tensor, teacher: Tensor, neighbours: bool = False) -> Tensor:
    """L of embeddings [B, D] of both networks: a mean over pairs, a sum over D; 0 for one sample."""
    delta = (precise(student) - precise(teacher)).abs()
    if neighbours:
        total, pairs = (delta[:-1] * delta[1:]).sum(), len(delta) - 1
    else:
        total, pairs = (delta * (delta.sum(0) - delta)).sum(), len(delta) * (len(delta) - 1)
    return total / max(pairs, 1)


class CC(Objective):
    """Two linear embeddings and the mean product of their differences."""

    needs = EMBEDDINGS

    def __init__(self, widths: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.student, self.teacher = (nn.Linear(width, options.embedding_width) for width in widths)
        self.neighbours = options.pairs == "neighbours"

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `congruence`."""
        s, t = embeddings(student, teacher)
        with torch.autocast(s.device.type, enabled=False):
            return {"congruence": congruence(self.student(s), self.teacher(t), self.neighbours)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    return CC(embedding_widths(student, teacher, key), options)
