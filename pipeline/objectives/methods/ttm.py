"""TTM: the student, at temperature 1, matches the teacher's probabilities raised to a power.

Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching", ICLR 2024, arXiv 2402.11148. With p =
softmax(t) of the teacher, q = softmax(z) of the student and γ = 1/T:

    p̃_c = p_c^γ / Σ_k p_k^γ,   L = (1/B) Σ_b KL(p̃_b ‖ q_b)

p̃ = softmax(γ t), so this is KD whose temperature is the teacher's alone; there is no factor T². Authors' recipe for
VGG-13 to VGG-8 on CIFAR-100: γ = 0.1 and weight 45 beside hard labels with weight 1. No deviation.
"""

from __future__ import annotations

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


class Options(Section):
    """power: γ > 0; below 1 the teacher's probabilities become more even."""

    power: float = Field(0.1, gt=0)


def transformed(student: Tensor, teacher: Tensor, power: float) -> Tensor:
    """The divergence of the student from the teacher's transformed probabilities, in nats. [..., K]; returns [...]."""
    return kl_divergence(student, precise(teacher) * power)


class TTM(SampleObjective):
    """The mean divergence from the transformed teacher, in nats."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `kl`."""
        return {"kl": transformed(student.logits, teacher.logits, self.power)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return TTM(options.power)
