"""RSD: dimensions of the embedding correlate with the teacher's of the same number, and little with all others.

"Cross-Architecture Distillation Made Simple with Redundancy Suppression", ICCV 2025, arXiv 2507.21844, after the
authors' code. P is a learned projector of the student's embedding to the teacher's width D, two linear maps without
bias of which the inner one is γ D_s wide, batch-normalised and through a GELU; n subtracts the mean over the batch
and divides by the standard deviation (that of the batch, biased) plus 10⁻⁵:

    R = (1/B) n(f_t)ᵀ n(P(f_s)),   L = Σ_d (R_dd - 1)² + κ Σ_{i≠j} R_ij²

A sum over D² pairs of dimensions, not a mean: it grows with D. Recipe of the code: weight 0.1 beside hard labels, κ =
0.01, γ = 2, no KD. It reads no label and works on unlabeled images. Exact from a cache. `compare: logits` has logits in
place of embeddings, with no projector between them unless it is asked for.

Deviations. Where a batch has fewer samples than there are dimensions, Σ_ij R_ij² is taken from the Gram matrices of
the samples, (1/B²) Σ_ab (n_t n_tᵀ)_ab (n_s n_sᵀ)_ab: the same number but for rounding, from B² numbers and not D². A
dimension that does not vary in the batch correlates with nothing, and has no gradient, where that of the code is not
finite; so a batch of one sample teaches nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.models.cells import CellNorm
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.embedding import EMBEDDINGS, gram
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths, require_same_classes
from pipeline.signals import Signals, SignalShapes

READS = ("embedding",)

EPSILON = 1e-5
"""The reference's, added to standard deviations."""

CONSTANT = 1e-12
"""Variances below, relative to the mean square, are rounding."""


class Options(Section):
    """Configures the objective.

    compare: embeddings, or logits. kappa: κ, of the correlations of different dimensions. factor: γ, how much wider the
    projector is inside than the student's vectors. projector: whether there is one (default: for embeddings alone);
    without it both networks' vectors have one width.
    """

    compare: Literal["embedding", "logits"] = "embedding"
    kappa: float = Field(0.01, ge=0)
    factor: float = Field(2.0, gt=0)
    projector: bool | None = None


def correlation_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Compute Σ_d (R_dd - 1)² and Σ_{i≠j} R_ij² of vectors [B, D] of both networks; D and 0 for one sample."""
    s, t = _standardised(precise(student)), _standardised(precise(teacher))
    batch, width = s.shape
    own = (s * t).mean(0)
    if batch < width:
        squares = (gram(s) * gram(t)).sum() / batch**2
    else:
        with torch.autocast(s.device.type, enabled=False):
            squares = (t.T @ s / batch).square().sum()
    return (own - 1).square().sum(), squares - own.square().sum()


def _standardised(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    variance = centred.square().mean(0)
    varies = variance.detach() > CONSTANT * x.detach().square().mean(0)
    return torch.where(varies, centred, 0) / (torch.where(varies, variance, 1).sqrt() + EPSILON)


def _projector(width: int, to: int, factor: float) -> nn.Module:
    """P, from vectors [B, width] to [B, to]."""
    inner = max(1, round(factor * width))
    return nn.Sequential(
        nn.Linear(width, inner, bias=False), CellNorm(inner), nn.GELU(), nn.Linear(inner, to, bias=False)
    )


class RSD(Objective):
    """The projector, and both sums of correlations."""

    def __init__(self, widths: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.options = options
        embeds = options.projector if options.projector is not None else options.compare == "embedding"
        self.projector = _projector(*widths, options.factor) if embeds else nn.Identity()
        of_both = frozenset({options.compare})
        self.needs = EMBEDDINGS if options.compare == "embedding" else Needs(teacher=of_both, student=of_both)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `correlation` and `redundancy`, the latter weighted by κ."""
        s, t = (self._vectors(each) for each in (student, teacher))
        with torch.autocast(s.device.type, enabled=False):
            projected = self.projector(s)
        correlation, redundancy = correlation_losses(projected, t)
        return {"correlation": correlation, "redundancy": self.options.kappa * redundancy}

    def _vectors(self, signals: Signals) -> Tensor:
        vectors = signals.embedding if self.options.compare == "embedding" else signals.logits
        assert vectors is not None
        return precise(vectors)


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without what is compared, and of other widths where there is no projector."""
    if options.compare == "logits":
        require_same_classes(student, teacher, key)
        return RSD((student.logits, teacher.logits), options)
    widths = embedding_widths(student, teacher, key)
    if options.projector is False and widths[0] != widths[1]:
        what = f"the embeddings of student and teacher are {widths[0]} and {widths[1]} wide"
        raise ConfigError([Problem(f"{key}.projector", what, fix="leave `projector: false` out")])
    return RSD(widths, options)
