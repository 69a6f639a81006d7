"""ABKD: KD by the α-β-divergence, which lies between both directions of KL and beyond them.

Wang, Yang, Wang, Wang, Xu and Huang, "ABKD: Pursuing a Proper Allocation of the Probability Mass in Knowledge
Distillation via α-β-Divergence", ICML 2025, arXiv 2505.04560. With p = softmax(t / T) of the teacher and q = softmax(z
/ T) of the student:

    L = (1/B) Σ_b Σ_c [ p^(α+β) / (β (α+β)) + q^(α+β) / (α (α+β)) - p^α q^β / (α β) ]
    β = 0: Σ [ α p^α ln(p/q) - p^α + q^α ] / α²             KL(p ‖ q) with α = 1
    α = 0: Σ [ β q^β ln(q/p) - q^β + p^β ] / β²             KL(q ‖ p) with β = 1
    α + β = 0: Σ [ (p/q)^α - α ln(p/q) - 1 ] / α²
    α = β = 0: Σ (ln p - ln q)² / 2

A larger α has the student learn where the teacher is sure, a larger β where it is sure itself. There is no factor T². α
= 0.8, β = 0.3 and T = 4 are those of the authors' README for ResNet-56 to ResNet-20, with weight 32 or 64, by its
version, beside hard labels.

The authors' code divides the first three special cases once by α or β, not twice, so that they are not the limits of
the general case: `limits: code`. Where α, β or their sum is negative, rare classes have powers without bound; they end
at exp(60), beyond which they have no gradient. No other deviation.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)

SMALLEST = 0.01
"""Of α, β and their sum, unless one is 0: less is the limit but for rounding, which the division makes large."""

HIGHEST_POWER = 60.0
"""Exponents end here: float32 ends at exp(88), and thousands of classes are added up."""


class Options(Section):
    """alpha, beta: powers of the teacher and of the student. temperature: T > 0. limits: of which form, if one is 0."""

    alpha: float = Field(0.8, ge=-10, le=10)
    beta: float = Field(0.3, ge=-10, le=10)
    temperature: float = Field(4.0, gt=0)
    limits: Literal["definition", "code"] = "definition"

    @model_validator(mode="after")
    def _far_from_zero(self) -> Self:
        for name, value in (("alpha", self.alpha), ("beta", self.beta), ("alpha + beta", self.alpha + self.beta)):
            if 0 < abs(value) < SMALLEST:
                raise ValueError(f"{name} is {value:g}: it must be 0, or {SMALLEST:g} or more in size")
        if self.limits == "code" and _scale(self.alpha, self.beta) < 0:
            raise ValueError(
                "limits: code divides by a negative power here, and would be raised: use limits: definition"
            )
        return self


def alpha_beta_divergence(student: Tensor, teacher: Tensor, alpha: float, beta: float) -> Tensor:
    """Compute the divergence of every row, with its limits where alpha, beta or their sum is 0.

    Args:
        student, teacher: logits, [..., K].

    Returns [...], 0 where both distributions are the same.
    """
    q, p = (precise(logits).log_softmax(-1) for logits in (student, teacher))
    both = alpha + beta
    if alpha == 0 and beta == 0:
        return (p - q).square().sum(-1) / 2
    if beta == 0:
        powers = _power(alpha * p)
        return (powers * (alpha * (p - q)) - powers + _power(alpha * q)).sum(-1) / alpha**2
    if alpha == 0:
        powers = _power(beta * q)
        return (powers * (beta * (q - p)) - powers + _power(beta * p)).sum(-1) / beta**2
    if both == 0:
        return (_power(alpha * (p - q)) - alpha * (p - q) - 1).sum(-1) / alpha**2
    of_teacher, of_student = _power(both * p) / (beta * both), _power(both * q) / (alpha * both)
    return (of_teacher + of_student - _power(alpha * p + beta * q) / (alpha * beta)).sum(-1)


def _power(exponent: Tensor) -> Tensor:
    return exponent.clamp(max=HIGHEST_POWER).exp()


class ABKD(SampleObjective):
    """The mean divergence. scale: what it is multiplied by."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = options.alpha, options.beta, options.temperature
        self.scale = _scale(options.alpha, options.beta) if options.limits == "code" else 1.0

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `divergence`."""
        s, t = (precise(signals.logits) / self.temperature for signals in (student, teacher))
        return {"divergence": self.scale * alpha_beta_divergence(s, t, self.alpha, self.beta)}


def _scale(alpha: float, beta: float) -> float:
    """What the authors' code multiplies the limits by."""
    if alpha == 0:
        return beta or 1.0
    return alpha if beta == 0 or alpha + beta == 0 else 1.0


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return ABKD(options)
