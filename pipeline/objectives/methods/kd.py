"""Knowledge distillation: the student matches the teacher's softened class probabilities.

Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, section 2:

    L = T² · (1/B) Σ_b KL(softmax(t_b / T) ‖ softmax(z_b / T))

The paper's cross-entropy with soft targets differs by the teacher's entropy, a constant. No deviation.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)


class Options(Section):
    """temperature: T > 0; 4 is the literature's value for CIFAR-100."""

    temperature: float = Field(4.0, gt=0)


class KD(SampleObjective):
    """T² times the mean KL divergence of the student from the teacher, in nats."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `kl`."""
        return {"kl": kl_divergence(student.logits, teacher.logits, self.temperature)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return KD(options.temperature)
