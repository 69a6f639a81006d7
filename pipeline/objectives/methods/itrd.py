"""ITRD: every dimension of the embedding correlates with the teacher's, and samples resemble each other as there.

Miles, Lopez Rodriguez and Mikolajczyk, "Information Theoretic Representation Distillation", BMVC 2022, arXiv
2112.00459, after the authors' code. e is a learned linear embedding of the student's in the teacher's width D, ê and t̂
both standardised over the batch (sample standard deviation), G the Gram matrices of vectors of length one:

    corr = log₂ Σ_d |1 - (1/B) Σ_b ê_d(b) t̂_d(b)|^{2α}
    mutual = Σ_ij [ (G_s / tr G_s)² - (G_s ∘ G_t / tr(G_s ∘ G_t))² ]_ij,   L = λ_c corr + λ_m mutual

corr, in bits, is negative for good students: log₂(D B^{-2α}) at best, as the mean divides by B and the deviation by B -
1. `mutual` compares the embeddings themselves where they are equally wide, e otherwise. Options are those of the run in
the code's README (λ_c = 2, λ_m = 1, α = 1.01; its command line has other defaults), with weight 1 beside hard labels
with weight 1. Exact from a cache.

Deviations: a dimension that is constant in the batch has correlation 0, where the code divides by 0; the logarithm
stops at the smallest number there is.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Objective
from pipeline.objectives.embedding import EMBEDDINGS, embeddings, gram
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding",)

CONSTANT = 1e-12
"""Variances below, relative to the mean square, are rounding."""


class Options(Section):
    """alpha: α, of the order of the entropy. correlation_weight, mutual_weight: λ_c and λ_m; 0 leaves one out."""

    alpha: float = Field(1.01, ge=0.5)
    correlation_weight: float = Field(2.0, ge=0)
    mutual_weight: float = Field(1.0, ge=0)


def correlation_loss(student: Tensor, teacher: Tensor, alpha: float) -> Tensor:
    """corr of embeddings [B, D] of both networks, in bits. Of one sample: log₂ D, without gradient."""
    s, t = _standardised(precise(student)), _standardised(precise(teacher))
    distance = (1 - (s * t).mean(0)).abs().pow(2 * alpha).sum()
    return distance.clamp(min=torch.finfo(s.dtype).tiny).log2()


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    variance = centred.square().sum(0) / max(len(x) - 1, 1)
    varies = variance.detach() > CONSTANT * x.detach().square().mean(0)
    return torch.where(varies, centred, 0) / torch.where(varies, variance, 1).sqrt()


def mutual_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """mutual of embeddings [B, D_s] and [B, D_t]."""
    of_student, of_teacher = gram(unit(precise(student), dim=1)), gram(unit(precise(teacher), dim=1))
    return _purity(of_student) - _purity(of_student * of_teacher)


def _purity(matrix: Tensor) -> Tensor:
    """The sum of squares of a Gram matrix of trace one; 0 for a matrix of zeros."""
    trace = matrix.trace()
    return (matrix / torch.where(trace > 0, trace, 1)).square().sum()


class ITRD(Objective):
    """The weighted sum of both losses."""

    needs = EMBEDDINGS

    def __init__(self, widths: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.options, self.same = options, widths[0] == widths[1]
        embeds = options.correlation_weight or not self.same
        self.embed = nn.Linear(*widths) if embeds else nn.Identity()

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `correlation` and `mutual`, weighted; without one whose weight is 0."""
        options = self.options
        s, t = embeddings(student, teacher)
        with torch.autocast(s.device.type, enabled=False):
            embedded = self.embed(s)
        terms = {}
        if options.correlation_weight:
            terms["correlation"] = options.correlation_weight * correlation_loss(embedded, t, options.alpha)
        if options.mutual_weight:
            terms["mutual"] = options.mutual_weight * mutual_loss(s if self.same else embedded, t)
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    return ITRD(embedding_widths(student, teacher, key), options)
