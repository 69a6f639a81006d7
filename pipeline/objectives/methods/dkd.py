"""DKD: distillation of the target class and of the others, each with its own weight.

Zhao, Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679, equations 6 and 7.
With p = softmax(z / T), y the target, b = (p_y, 1 - p_y), and p̂ the softmax over the K - 1 other classes:

    L = α · TCKD + β · NCKD,   TCKD = T² · (1/B) Σ KL(b_t ‖ b_s),   NCKD = T² · (1/B) Σ KL(p̂_t ‖ p̂_s)

With α = 1 and β = 1 - p_t,y of each sample this is KD. Authors' recipe: β = 8 (2 for ResNet-56 to ResNet-20), weight
1, beside hard labels with weight 1, with a linear warm-up over the first 20 of 240 epochs (`schedule: {warmup:
0.083}`). NCKD is 0 with two classes, which leave one other. Computed from log-softmaxes, without the authors' masks
of -1000 and logarithms of probabilities, which fail for large logits; no other deviation.
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
from pipeline.objectives.target import others_of, target_or_not
from pipeline.signals import Signals, SignalShapes

READS = ("logits", "labels")


class Options(Section):
    """alpha, beta: the weights of target and others. temperature: T > 0."""

    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)
    temperature: float = Field(4.0, gt=0)


def decoupled(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """TCKD and NCKD of every row, in nats, times T². student, teacher [..., K], labels [...]; returns [...] each."""
    s, t = precise(student) / temperature, precise(teacher) / temperature
    target = kl_divergence(target_or_not(s, labels), target_or_not(t, labels)) * temperature**2
    others = kl_divergence(others_of(s, labels), others_of(t, labels)) * temperature**2
    return target, others


class DKD(SampleObjective):
    """The weighted sum of both divergences, a mean over the batch."""

    needs = Needs(teacher=frozenset({"logits"}), labels=True)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.alpha, self.beta, self.temperature = options.alpha, options.beta, options.temperature

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `target` and `others`, weighted."""
        target, others = decoupled(student.logits, teacher.logits, batch.labels, self.temperature)
        return {"target": self.alpha * target, "others": self.beta * others}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return DKD(options)
