"""CTKD: KD whose temperature is learned against the student, so that the task becomes harder as it learns.

Li, Li, Yang, Zhao, Song, Luo, Li and Yang, "Curriculum Temperature for Knowledge Distillation", AAAI 2023, arXiv
2211.16231, with one temperature for all samples:

    T = T_0 + span · sigmoid(θ),   L = T² · (1/B) Σ_b KL(softmax(t_b / T) ‖ softmax(z_b / T))

The student minimises L while θ maximises it: its gradient is multiplied by -λ, and λ rises from 0 to 1 with the
progress p,

    λ = (1 - cos(π · min(p / ramp, 1))) / 2

θ is 1 at first, hence T = 15.6, and is trained with the student: at its learning rate times the entry's
`learning_rate`, with its weight decay, as in the authors' code. Recipe of the code: weight 0.9 beside hard labels with
0.1, λ over the first 10 of 240 epochs (`ramp: 0.042`). Deviations: λ rises with every step, not every epoch. The
variant with a temperature of each sample, from a small network on logits, is not here.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)


class Options(Section):
    """lowest: T_0 > 0. span: the highest temperature less the lowest. ramp: share of training in which λ rises."""

    lowest: float = Field(1.0, gt=0)
    span: float = Field(20.0, gt=0)
    ramp: float = Field(0.042, ge=0, le=1)


def strength(progress: float, ramp: float) -> float:
    """λ at a progress in [0, 1]: from 0 to 1 over `ramp`."""
    return (1 - math.cos(math.pi * min(progress / ramp, 1))) / 2 if ramp else 1.0


def reversed_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, whose gradient is multiplied by -factor."""
    still = x.detach()
    return still - factor * (x - still)


class CTKD(SampleObjective):
    """KD at a learned temperature. `theta` is its one parameter."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.options = options
        self.theta = nn.Parameter(torch.ones(()))

    def temperature(self) -> Tensor:
        """T, as it is now: a scalar."""
        return self.options.lowest + self.options.span * self.theta.sigmoid()

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `kl`."""
        temperature = reversed_gradient(self.temperature(), strength(progress, self.options.ramp))
        return {"kl": kl_divergence(student.logits, teacher.logits, temperature)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return CTKD(options)
