"""EKD: logits are evidence for a distribution of class probabilities, and the student matches it and its expectation.

Xiang, Gao and Xu, "Evidential Knowledge Distillation", ICCV 2025. Logits z of either network say a Dirichlet
distribution of the probabilities of the K classes. With a prior λ, given by its logarithm:

    expectation = T² · (1/B) Σ KL(p_t ‖ p_s),   p = (exp(z / T) + λ) / Σ_c (exp(z_c / T) + λ)
    α = ln(1 + softplus(z / T)) + λ,   S = Σ_c α_c
    distribution = T² · (1/B) Σ KL(Dir(α_t) ‖ Dir(α_s))
                 = T² · (1/B) Σ [ lnΓ(S_t) - lnΓ(S_s) - Σ_c (lnΓ(α_t) - lnΓ(α_s)) + Σ_c (α_t - α_s) (ψ(α_t) - ψ(S_t)) ]
    L = w_e · expectation + w_d · distribution

Both depend on what is added to all logits, which probabilities do not. So an ensemble needs `role: mean-logits`: those
of `mean-probabilities` are logarithms of probabilities, next to nothing beside the prior of many classes. ln λ = -1.22
and T = 1 are the authors'; their configuration for ResNet-56 to ResNet-20 has ln λ = -0.93, w_e = 3, w_d = 2 and hard
labels with weight 5, and `distribution` warms up over 30 of 240 epochs. `log_evidence: false` leaves the logarithm out:
α = softplus(z / T) + λ.

After the functions of the authors' code. What it trains with is something else: as it is published, it computes both
terms and then puts others in their place, KD and the squared difference of logits, and its own form of hard labels
beside them. Computed from logarithms where the code has exp(z), which ends at 88; no other deviation.
"""

from __future__ import annotations

import math
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)


class Options(Section):
    """Holds the constants.

    Args:
        expectation_weight, distribution_weight: w_e and w_d; 0 leaves a term out.
        temperature: T > 0. log_prior: ln λ. log_evidence: whether the distribution is that of ln(1 + softplus).
    """

    expectation_weight: float = Field(1.0, ge=0)
    distribution_weight: float = Field(1.0, ge=0)
    temperature: float = Field(1.0, gt=0)
    log_prior: float = Field(-1.22, ge=-10, le=10)
    log_evidence: bool = True

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.expectation_weight and not self.distribution_weight:
            raise ValueError("expectation_weight and distribution_weight are 0: nothing is compared")
        return self


def concentrations(logits: Tensor, log_prior: float, log_evidence: bool) -> Tensor:
    """α of logits, [..., K]: positive."""
    evidence = F.softplus(precise(logits))
    return (evidence.log1p() if log_evidence else evidence) + math.exp(log_prior)


def dirichlet_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(Dir(teacher) ‖ Dir(student)) of every row, in nats. α of both, [..., K]; returns [...]."""
    s, t = student.sum(-1), teacher.sum(-1)
    expected = torch.digamma(teacher) - torch.digamma(t)[..., None]
    apart = torch.lgamma(student) - torch.lgamma(teacher) + (teacher - student) * expected
    return torch.lgamma(t) - torch.lgamma(s) + apart.sum(-1)


class EKD(SampleObjective):
    """The weighted sum of both divergences, a mean over the batch."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `expectation` and `distribution`, weighted; without one whose weight is 0."""
        options = self.options
        terms: dict[str, Tensor] = {}
        s, t = (precise(signals.logits) / options.temperature for signals in (student, teacher))
        scale = options.temperature**2
        if options.expectation_weight:
            prior = s.new_full((), options.log_prior)
            divergence = kl_divergence(torch.logaddexp(s, prior), torch.logaddexp(t, prior.to(t.dtype)))
            terms["expectation"] = options.expectation_weight * scale * divergence
        if options.distribution_weight:
            of_both = (concentrations(z, options.log_prior, options.log_evidence) for z in (s, t))
            terms["distribution"] = options.distribution_weight * scale * dirichlet_divergence(*of_both)
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return EKD(options)
