"""LSKD: KD on standardised logits, so that only their shape is to be matched, not their size.

Sun, Ren, Li, Wang and Cao, "Logit Standardization in Knowledge Distillation", CVPR 2024, arXiv 2403.01427. Every
vector of logits is standardised over the classes before KD:

    Z(z) = (z - mean(z)) / (std(z) + 10⁻⁷),   L = T² · (1/B) Σ_b KL(softmax(Z(t_b) / T) ‖ softmax(Z(z_b) / T))

std is that of a sample (K - 1), as in the authors' code; the paper's algorithm has 1/K, a factor of 1.005 in T with
100 classes. Authors' recipe: T = 2 and weight 9 beside hard labels with weight 0.1; chosen for each pair in their
logs, T from 2 to 4 and weights from 6 to 18. No other deviation.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)

EPSILON = 1e-7
"""The reference's, added to the standard deviation."""


class Options(Section):
    """temperature: T > 0, of the standardised logits."""

    temperature: float = Field(2.0, gt=0)


def standardised(logits: Tensor) -> Tensor:
    """Logits of mean 0 and standard deviation 1 over the classes; 0 where all are alike. [..., K], K at least 2."""
    logits = precise(logits)
    centred = logits - logits.mean(-1, keepdim=True)
    deviation = centred.std(-1, keepdim=True)
    # A student whose classifier begins at zero says the same of all classes: no deviation to blow a gradient up with.
    result: Tensor = centred / torch.where(deviation > 0, deviation + EPSILON, 1)
    return result


class LSKD(SampleObjective):
    """T² times the mean KL divergence between standardised logits, in nats."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `kl`."""
        s, t = standardised(student.logits), standardised(teacher.logits)
        return {"kl": kl_divergence(s, t, self.temperature)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and with one class."""
    require_same_classes(student, teacher, key)
    if student.logits < 2:
        raise ConfigError([Problem(key, "needs two classes or more: one logit has no deviation", fix="leave it out")])
    return LSKD(options.temperature)
