"""TAS's loss: contrast of maps smoothed until places do not matter, for networks of any architecture.

After Li, Wang, Yan, Ding, Gao and Xia, "TAS: Distilling Arbitrary Teacher and Student via a Hybrid Assistant", arXiv
2410.12342. **Ours after the abstract**: it observes that features of different architectures lie differently in space,
and replaces the squared error of places by a spatial-agnostic InfoNCE after smoothing. That loss alone is here. The
hybrid assistant, which is made of the teacher's own modules and trained with the student, needs the teacher in stage
two and cannot be had from a cache. How far to smooth, the projectors, τ, the blocks and their weight are our choices;
published numbers of TAS must not be compared with this file's.

For every pair of blocks k (from the deepest backwards), with means over r x r cells, 1 x 1 by default:

    u(b) = norm(vec(φ_k(mean F_s(b)))),   v(b) = norm(vec(ψ(mean F_t(b))))
    L_k = -(1/B) Σ_b log( exp(u(b)·v(b)/τ) / Σ_{j ∈ N(b)} exp(u(b)·v(j)/τ) ),   L = mean over k

φ is a learned projection of channels and a batch normalisation, ψ the same normalisation without anything learned:
means of maps after activation all point alike, and cosines of them would tell samples hardly apart. N(b) holds b and
every row of another sample: two views of one sample are not each other's negatives. LFCC (`lfcc`) is the same
with several scales and in both directions, and with a `width` also projects the teacher's maps. Exact from a cache
low-passed by `mean`, where r divides the cached grid, and by `dct`, with low frequencies in place of means.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, BlockPair, Context, Objective, pair_blocks
from pipeline.objectives.maps import CellNorm, Connector, needs_of
from pipeline.objectives.methods.lfcc import contrast
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

READS = ("features",)


class Options(Section):
    """blocks: the teacher's, default all that are cached. grid: r, cells a side. temperature: τ > 0."""

    blocks: tuple[str, ...] | None = None
    grid: int = Field(1, gt=0)
    temperature: float = Field(0.1, gt=0)


def smoothed_contrast(student: Tensor, teacher: Tensor, same: Tensor, temperature: float) -> Tensor:
    """InfoNCE of maps [B, C, r, r] in nats: which of the teacher's is the student's own; of every row, [B].

    same: [B, B] bool, pairs of different rows that are no negatives.
    """
    return contrast([student.flatten(1)], [teacher.flatten(1)], same, temperature, symmetric=False)


class TAS(SampleObjective):
    """The mean contrast over pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.grid, self.temperature, self.low_pass = pairs, options.grid, options.temperature, low_pass
        self.projectors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.norms = nn.ModuleList(CellNorm(pair.teacher_shape[0], affine=False) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `smoothed`."""
        same = batch.sample[:, None] == batch.sample
        same.fill_diagonal_(False)
        losses = []
        for pair, projector, norm in zip(self.pairs, self.projectors, self.norms, strict=True):
            s = lowpass(student.features[pair.student], self.grid, self.low_pass)
            t = lowpass(teacher.features[pair.teacher], self.grid, self.low_pass)
            losses.append(smoothed_contrast(projector(s), norm(precise(t)), same, self.temperature))
        return {"smoothed": torch.stack(losses).mean(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses a grid that is finer than a map."""
    pairs = pair_blocks(student, teacher, options.blocks, key)
    coarsest = min(side for pair in pairs for side in (*pair.student_shape[1:], *pair.teacher_shape[1:]))
    if options.grid > coarsest:
        what = f"is finer than the coarsest map of the paired blocks, {coarsest} cells a side"
        raise ConfigError([Problem(f"{key}.grid", what, got=str(options.grid), fix=f"use {coarsest} at most")])
    return TAS(pairs, options, teacher.filter)
