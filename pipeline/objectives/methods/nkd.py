"""NKD: the target's likelihood weighted by the teacher's, and the distribution of the others.

Yang, Zeng, Li, Zhang, Yuan and Li, "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach
with Normalized Loss and Customized Soft Labels", ICCV 2023, arXiv 2303.13005, equation 5:

    L = -(1/B) Σ p_t,y log p_s,y - γ T² (1/B) Σ Σ_{c≠y} p̂_t,c log p̂_s,c

p = softmax(z) at temperature 1, p̂ = softmax over the K - 1 other classes at temperature T. Neither part is a
divergence: at student = teacher they are entropies, not 0. Authors' constants: γ = 1.5 and T = 1 for ImageNet, γ =
3.5 and T = 3 for ResNet-34 to ResNet-18 on CIFAR-100; beside hard labels with weight 1. After the authors' code as it
is since October 2023; copies of the earlier one (SDD's, iCD's) have a mask that does not take the target out.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.objectives.target import others_of
from pipeline.signals import Signals, SignalShapes

READS = ("logits", "labels")


class Options(Section):
    """gamma: the weight of the others. temperature: T > 0, of the others only."""

    gamma: float = Field(1.5, ge=0)
    temperature: float = Field(1.0, gt=0)


def normalised(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The target's part and the others', times T², of every row, in nats. [..., K] and labels [...]; returns [...]."""
    s, t = precise(student), precise(teacher)
    at = labels[..., None]
    target = -(t.softmax(-1).gather(-1, at) * s.log_softmax(-1).gather(-1, at)).squeeze(-1)
    of_teacher = (others_of(t, labels) / temperature).softmax(-1)
    of_student = (others_of(s, labels) / temperature).log_softmax(-1)
    return target, -(of_teacher * of_student).sum(-1) * temperature**2


class NKD(SampleObjective):
    """The sum of both parts, a mean over the batch."""

    needs = Needs(teacher=frozenset({"logits"}), labels=True)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.gamma, self.temperature = options.gamma, options.temperature

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `target` and `others`, weighted."""
        target, others = normalised(student.logits, teacher.logits, batch.labels, self.temperature)
        return {"target": target, "others": self.gamma * others}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return NKD(options)
