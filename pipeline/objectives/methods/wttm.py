"""WTTM: TTM in which samples about which the teacher is in doubt weigh more.

Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024, arXiv 2402.11148. With p =
softmax(t) of the teacher, q of the student, and p̃ the transformed teacher of `ttm`:

    L = (1/B) Σ_b U(b) · KL(p̃_b ‖ q_b),   U = Σ_c p_c^γ

For 0 < γ < 1 the weight U lies between 1, of a teacher without any doubt, and K^(1 - γ), of one that knows nothing: 40
with 100 classes and γ = 0.2. Authors' recipe for VGG-13 to VGG-8 on CIFAR-100: γ = 0.2 and weight 4, together with CRD.
Powers of probabilities are taken as exponentials of log-probabilities; no other deviation.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.methods.ttm import transformed
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)


class Options(Section):
    """power: γ > 0; below 1 the teacher's probabilities become more even."""

    power: float = Field(0.2, gt=0)


def doubt(teacher: Tensor, power: float) -> Tensor:
    """U = Σ p^γ of logits [..., K]; returns [...], between 1 and K^(1 - γ)."""
    return (precise(teacher).log_softmax(-1) * power).exp().sum(-1)


class WTTM(SampleObjective):
    """The weighted mean divergence from the transformed teacher, in nats."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `kl`."""
        divergence = transformed(student.logits, teacher.logits, self.power)
        return {"kl": doubt(teacher.logits, self.power) * divergence}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return WTTM(options.power)
