"""RLD: the student is as sure of the label as the teacher is of its favourite, and learns the order of those below.

Sun, Chen, Lyu, Chen, Chen and Wang, "Knowledge Distillation with Refined Logits", ICCV 2025, arXiv 2408.07703. A
teacher that is wrong does not teach its error. With y the label, m the teacher's most likely class and b(p, c) = (p_c,
1 - p_c):

    confidence = T_α² · (1/B) Σ KL(b(p_t, m) ‖ b(p_s, y)),   p = softmax(z / T_α)
    ranking = T² · (1/B) Σ KL(p̂_t ‖ p̂_s),   p̂ = softmax(z / T) over the classes that the teacher ranks below y
    L = α · confidence + β · ranking

So L is not 0 at student = teacher where the teacher is wrong. A class whose logit equals that of the label is not below
it. Where none is below, the ranking is 0. T = 4, T_α = 1, α = 1 and β = 8 are those of the authors' code, with weight 1
beside hard labels with weight 1, and a linear warm-up over the first 20 of 240 epochs (`schedule: {warmup: 0.083}`);
the paper's default is β = 4. `standard_logits` standardises the logits of both networks before, as LSKD does. The code
masks logits with -10⁹, this with -∞: the values are the same. No other deviation.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence, kl_divergence_among
from pipeline.objectives.methods.lskd import standardised
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.objectives.target import target_or_not
from pipeline.signals import Signals, SignalShapes

READS = ("logits", "labels")


class Options(Section):
    """Holds the constants.

    Args:
        alpha, beta: the weights of confidence and ranking.
        temperature: T > 0, of the ranking. alpha_temperature: T_α > 0, of the confidence.
        standard_logits: whether logits are standardised over the classes before they are compared.
    """

    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    alpha_temperature: float = Field(1.0, gt=0)
    standard_logits: bool = False


def as_sure_of_the_label(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """confidence of every row, in nats, times T_α². Logits [..., K], labels [...]; returns [...]."""
    s, t = precise(student) / temperature, precise(teacher) / temperature
    return kl_divergence(target_or_not(s, labels), target_or_not(t, t.argmax(-1))) * temperature**2


def ranked_below(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """ranking of every row, in nats, times T². Logits [..., K], labels [...]; returns [...], 0 where none is below."""
    below = teacher < teacher.gather(-1, labels[..., None])
    return kl_divergence_among(student, teacher, below, temperature)


class RLD(SampleObjective):
    """The weighted sum of both divergences, a mean over the batch."""

    needs = Needs(teacher=frozenset({"logits"}), labels=True)

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `confidence` and `ranking`, weighted."""
        options, s, t = self.options, student.logits, teacher.logits
        if options.standard_logits:
            s, t = standardised(s), standardised(t)
        confidence = as_sure_of_the_label(s, t, batch.labels, options.alpha_temperature)
        ranking = ranked_below(s, t, batch.labels, options.temperature)
        return {"confidence": options.alpha * confidence, "ranking": options.beta * ranking}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and with one class."""
    require_same_classes(student, teacher, key, fewest=2)
    return RLD(options)
