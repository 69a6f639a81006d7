"""LDRLD: every two of the student's favourite classes are told from each other as the teacher tells them.

Xu, Liu, Liu, Wang, Xu and Cheng, "Local Dense Logit Relations for Enhanced Knowledge Distillation", ICCV 2025, arXiv
2507.15911, after the authors' code. Classes are numbered by the student's own order, the most likely one is 1, and the
same numbers are used for the teacher. D = {1, ..., d} are the first ones, KL(A) = T² · KL(p̂_t ‖ p̂_s) with p̂ =
softmax(z / T) over the classes of a set A alone:

    local = (1/B) Σ_b [ Σ_{i<j≤d} Ω_ij KL({i, j}) + KL(D) ] / (d (d - 1) / 2 + 1)
    Ω_ij = 2 exp(-0.05 (i + j)) / (1.5 + |i - j|)
    rest = (1/B) Σ_b KL(all classes but D),   L = α · local + β · rest

T = 4, d = 7, α = 10.5 and β = 7 are those of the authors' README and script for ResNet-32x4 to ResNet-8x4, beside hard
labels with weight 1, and with 20 epochs in which the learning rate warms up. No label is read. The student's order has
no gradient; classes that it likes alike have that of their numbers.

As in the code, with d = 2 the term of the set, which is that of the one pair, has the pair's weight; and where d is the
number of classes, so that nothing is left, `rest` is the divergence over all of them. With fewer classes than `top`, d
is their number. Sets are taken out rather than masked with -1000 as in the code, which logits of that size reach; no
other deviation.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)

DECAY, APART, SCALE = 0.05, 1.5, 2.0
"""The reference's, of the weights Ω."""


class Options(Section):
    """alpha, beta: weights of `local` and `rest`. temperature: T > 0. top: d, the student's favourite classes."""

    alpha: float = Field(10.5, ge=0)
    beta: float = Field(7.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    top: int = Field(7, ge=2)


def pair_weights(top: int, like: Tensor) -> Tensor:
    """Ω of all pairs of the first classes, [top, top]; 0 but for i < j. like: has the precision and the device."""
    place = torch.arange(1, top + 1, dtype=like.dtype, device=like.device)
    first, second = place[:, None], place[None]
    return (SCALE * torch.exp(-DECAY * (first + second)) / (APART + (first - second).abs())).triu(1)


def local_relations(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """local of every row, [B], in nats, times T². Logits [B, d] of the first classes, in the student's order."""
    s, t = precise(student), precise(teacher)
    top = s.shape[1]
    weights = pair_weights(top, s)
    pairs = (kl_divergence(_told_apart(s), _told_apart(t), temperature) * weights).sum((1, 2))
    of_the_set = kl_divergence(s, t, temperature)
    together = pairs + (of_the_set if top > 2 else weights[0, 1] * of_the_set)
    return together / (top * (top - 1) / 2 + 1)


def _told_apart(logits: Tensor) -> Tensor:
    """Two logits of every pair of classes, [B, d, d, 2]: their difference and 0."""
    apart = logits[:, :, None] - logits[:, None]
    return torch.stack((apart, torch.zeros_like(apart)), dim=-1)


class LDRLD(SampleObjective):
    """The weighted sum of both parts, a mean over the batch. top: d."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options, top: int) -> None:
        super().__init__()
        self.options, self.top = options, top

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `local` and `rest`, weighted."""
        options = self.options
        order = student.logits.detach().argsort(dim=1, descending=True, stable=True)
        s, t = (signals.logits.gather(1, order) for signals in (student, teacher))
        local = local_relations(s[:, : self.top], t[:, : self.top], options.temperature)
        others = self.top if self.top < s.shape[1] else 0
        rest = kl_divergence(s[:, others:], t[:, others:], options.temperature)
        return {"local": options.alpha * local, "rest": options.beta * rest}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and with one class."""
    require_same_classes(student, teacher, key, fewest=2)
    return LDRLD(options, min(options.top, student.logits))
