"""SDD: distillation of local logits, with more weight where part and whole disagree.

Luo, "Scale Decoupled Distillation", CVPR 2024, arXiv 2403.13512, equations 6 to 9. π(p) are the logits of cell p, of
the grids r x r of all scales r together, P cells; ℓ is the base objective's loss of one row:

    L = (1/B) Σ_b (1/P) Σ_p w(b, p) · ℓ(π_s(b, p), π_t(b, p), y_b)

w = 1 where the teacher is right about both the cell and the whole, or wrong about both; `complementary_weight` where
it is right about exactly one of them (its cell is a trap, or knows better). The whole is the mean of the cells.
Scales: {1, 2} for networks of one family and {1, 2, 4} for others, says the paper.

After the authors' code where it differs from the paper: a mean over the P cells, not a sum over scales and cells;
right or wrong is judged by the label. Unlike the code, whatever is not finite is not replaced by zero, and the base
`nkd` takes the target out of the others (the code's mask does not). Authors' recipe: weight 1 with a linear warm-up
over the first 20 of 240 epochs for the bases `dkd` and `nkd`, 0.9 without warm-up for `kd`; the paper speaks of 30
epochs, for every base. Cells are exact means; where 4 does not divide the map, 7 x 7 for one, the code's adaptive
pooling has cells that overlap. Exact from a cache of the last map, low-passed by `mean`, and the head.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.local import last_maps, local_logits, refuse_repeated_grids
from pipeline.objectives.methods.dkd import decoupled
from pipeline.objectives.methods.nkd import normalised
from pipeline.objectives.requirements import refuse_idle
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features", "head", "labels")

IDLE = {"kd": ("alpha", "beta", "gamma"), "dkd": ("gamma",), "nkd": ("alpha", "beta")}
"""The options that a base does not read."""


class Options(Section):
    """base: the loss of one cell. scales: grids, each dividing the largest. temperature: T > 0, of the base.

    complementary_weight: of cells about which the teacher judges otherwise than about the whole. alpha, beta: of the
    base `dkd`. gamma: of the base `nkd`.
    """

    base: Literal["kd", "dkd", "nkd"] = "kd"
    scales: Annotated[tuple[int, ...], AfterValidator(refuse_repeated_grids)] = (1, 2, 4)
    complementary_weight: float = Field(2.0, ge=0)
    temperature: float = Field(4.0, gt=0)
    alpha: float = Field(1.0, ge=0)
    beta: float = Field(8.0, ge=0)
    gamma: float = Field(8.0, ge=0)

    @model_validator(mode="after")
    def _read(self) -> Self:
        refuse_idle(self, f"base {self.base!r}", IDLE[self.base])
        return self


def region_weights(cells: Tensor, whole: Tensor, labels: Tensor, complementary: float) -> Tensor:
    """The weight of every cell, [B, P]. cells: the teacher's local logits [B, P, K]; whole: its logits [B, K]."""
    right = cells.argmax(-1) == labels[:, None]
    whole_right = whole.argmax(-1) == labels
    return torch.where(right == whole_right[:, None], 1.0, complementary).to(cells.dtype)


class SDD(SampleObjective):
    """The weighted mean of the base's loss over cells and batch."""

    def __init__(self, pair: BlockPair, options: Options) -> None:
        super().__init__()
        self.pair, self.options = pair, options
        self.needs = Needs(
            teacher=frozenset({f"features/{pair.teacher}", "head"}),
            student=frozenset({f"features/{pair.student}"}),
            labels=True,
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, named after the base."""
        options = self.options
        s = torch.cat(local_logits(student, self.pair.student, options.scales), dim=1)
        grids = local_logits(teacher, self.pair.teacher, options.scales)
        t, labels = torch.cat(grids, dim=1), batch.labels[:, None].expand(-1, s.shape[1])
        weights = region_weights(t, grids[0].mean(1), batch.labels, options.complementary_weight)
        return {options.base: (weights * self._losses(s, t, labels)).mean(1)}

    def _losses(self, s: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        options = self.options
        if options.base == "kd":
            return kl_divergence(s, t, options.temperature)
        if options.base == "dkd":
            target, others = decoupled(s, t, labels, options.temperature)
            return options.alpha * target + options.beta * others
        target, others = normalised(s, t, labels, options.temperature)
        return target + options.gamma * others


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without local logits, with every reason."""
    return SDD(last_maps(student, teacher, options.scales, key), options)
