"""DIST: the student's probabilities need only correlate with the teacher's, for every sample and for every class.

Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536. With
Y = softmax(z / T) of a batch, [B, K], and ρ Pearson's correlation of two rows or two columns:

    L = T² · (β · inter + γ · intra),   inter = 1 - (1/B) Σ_b ρ(Y_s[b, :], Y_t[b, :]),
                                        intra = 1 - (1/K) Σ_c ρ(Y_s[:, c], Y_t[:, c])

The intra part depends on the batch: of one sample it is 1 whatever the student says. The factor T² is in the authors'
code and not in the paper. Their recipe: weight 2 with T = 1 for ImageNet, β = γ = 1, beside hard labels with weight
1. As in the code 10⁻⁸ is added to the denominator of ρ: what does not vary correlates with nothing. No other deviation.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)

EPSILON = 1e-8
"""The reference's, in the denominator."""


class Options(Section):
    """beta: weight of the relations of classes. gamma: of the relations of samples. temperature: T > 0."""

    beta: float = Field(1.0, ge=0)
    gamma: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, gt=0)


def correlation(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Pearson's correlation along `dim`, in [-1, 1]; 0 where one of both is constant. Shapes [..., n, ...] alike."""
    sizes = [torch.linalg.vector_norm(each, dim=dim) for each in (x, y)]
    x, y = (each - each.mean(dim, keepdim=True) for each in (x, y))
    lengths = [torch.linalg.vector_norm(each, dim=dim) for each in (x, y)]
    # What rounding leaves of a constant is no variation: divided by its length it would have a gradient without bound,
    # as where a student's classifier begins at zero.
    rounding = 8 * torch.finfo(x.dtype).eps
    varies = (lengths[0] > rounding * sizes[0]) & (lengths[1] > rounding * sizes[1])
    return (x * y).sum(dim) / torch.where(varies, lengths[0] * lengths[1] + EPSILON, 1)


def relations(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """inter and intra, times T². Logits [B, K] each; returns scalars, from 0 to 2 T²."""
    s, t = ((precise(logits) / temperature).softmax(1) for logits in (student, teacher))
    inter, intra = (1 - correlation(s, t, dim).mean() for dim in (1, 0))
    return inter * temperature**2, intra * temperature**2


class DIST(Objective):
    """One minus the mean correlation, of rows and of columns."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.beta, self.gamma, self.temperature = options.beta, options.gamma, options.temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `inter` and `intra`, weighted."""
        inter, intra = relations(student.logits, teacher.logits, self.temperature)
        return {"inter": self.beta * inter, "intra": self.gamma * intra}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return DIST(options)
