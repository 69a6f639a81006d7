"""CKD: each of the teacher's logit vectors must be most like the student's of the same sample, of a whole batch.

Zhu, Zhou, Zhu, Wang and Hu, "CKD: Contrastive Knowledge Distillation from A Sample-Wise Perspective", arXiv 2404.14109.
With S_ij = cos(t_i, z_j) of the teacher's logits of sample i and the student's of sample j:

    L = -(1/B) Σ_i log( exp(S_ii / T) / Σ_{j ∈ N(i)} exp(S_ij / T) )

in one direction only, each teacher's row among the student's. N(i) holds i and every row of another sample: where a
batch has several views of a sample they are not each other's negatives (the authors have one view of each). The value
depends on the batch: with T = 1 it is at least log(1 + (B - 1) e⁻²), and 0 for a batch of one sample. Authors' recipe
for CIFAR-100: T = 1 and weight 100, or 10 for ResNet-56 to ResNet-20, beside hard labels with weight 1. No other
deviation.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("logits",)


class Options(Section):
    """temperature: T > 0, of the cosines."""

    temperature: float = Field(1.0, gt=0)


def sample_contrast(student: Tensor, teacher: Tensor, sample: Tensor, temperature: float) -> Tensor:
    """The contrast of every teacher's row, in nats. Logits [B, K] each, sample [B]; returns [B], at least 0."""
    s, t = unit(precise(student), 1), unit(precise(teacher), 1)
    with torch.autocast(s.device.type, enabled=False):
        scores = t @ s.T / temperature
    other_view = sample[:, None] == sample
    other_view = other_view & ~torch.eye(len(sample), dtype=torch.bool, device=sample.device)
    return scores.masked_fill(other_view, float("-inf")).logsumexp(1) - scores.diagonal()


class CKD(SampleObjective):
    """The mean contrast over a batch, in nats."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `contrast`."""
        return {"contrast": sample_contrast(student.logits, teacher.logits, batch.sample, self.temperature)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return CKD(options.temperature)
