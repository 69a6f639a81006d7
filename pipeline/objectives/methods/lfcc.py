"""LFCC: contrast of low-frequency components between networks of any architecture.

After "Low-Frequency Components-based Contrastive Knowledge Distillation" (arXiv 2405.18524). **Ours after the
abstract**: it establishes multi-scale low-pass filters on intermediate features, a compact space, and a
sample-level contrast in which student and teacher of one sample attract and other samples repel. The filter
(the cache's: means over cells unless it says otherwise), its scales, the projectors, the temperature and the weights
are our choices (`docs/lfcc.md` lists what was tried); published numbers of LFCC must not be compared with this file's.

For every pair of blocks k (from the deepest backwards) and every scale r:

    u_s(b) = norm(vec(low_r(φ_k F_s(b)))),   u_t(b) = norm(vec(low_r(ψ_k F_t(b))))     in R^{D · r²}
    L_{k,r} = -(1/B) Σ_b log( exp(u_s(b)·u_t(b)/τ) / Σ_{j ∈ N(b)} exp(u_s(b)·u_t(j)/τ) )
    L = mean over k, r (and over both directions if symmetric), r no finer than the student's map of k

φ is a learned linear map to the teacher's D channels, followed by batch normalisation over samples and cells (without
learned scale), and ψ that normalisation alone: the student meets all that the teacher says. With a `width` both are
learned maps to a compact space of D = `width`, as the abstract has it; what is hard for the student to say may be lost
there from the teacher, too (`docs/lfcc.md` has how much less that taught). A linear map commutes with every filter, so
all scales come from one projection of the cached grid. That is exact with `dct`, and with `mean` where r divides the
cached grid; a coarser scale of `gaussian` is that of the grid, not of the map.
N(b) holds b and every row of another sample: two views of one sample are not each other's negatives.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.models.cells import CellNorm
from pipeline.objectives.base import Batch, BlockPair, Context, Objective, pair_blocks
from pipeline.objectives.maps import needs_of
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.signals.unit import unit

READS = ("features",)


class Options(Section):
    """width: channels of a compact space that the maps of both are projected to; default none, the teacher's are kept.

    scales: grids, each at most the cached grid; of those finer than a student's map none is used there. temperature:
    τ > 0. blocks: the teacher's blocks, default all that are cached. symmetric: contrast in both directions.
    """

    width: int | None = Field(None, gt=0)
    scales: tuple[int, ...] = Field((1, 2, 4), min_length=1)
    temperature: float = Field(0.1, gt=0)
    blocks: tuple[str, ...] | None = None
    symmetric: bool = True


def contrast(
    student: Sequence[Tensor], teacher: Sequence[Tensor], same: Tensor, temperature: float | Tensor, symmetric: bool
) -> Tensor:
    """InfoNCE in which row b's positive is the teacher's row b, in nats: of every row, the mean over S spaces; [B].

    student, teacher: S matrices each, [B, E_s]. same: [B, B] bool, pairs of different rows that are no negatives.
    """
    cosines = [unit(precise(u), 1) @ unit(precise(v), 1).T for u, v in zip(student, teacher, strict=True)]
    scores = (precise(torch.stack(cosines)) / temperature).masked_fill(same, float("-inf"))
    own = scores.diagonal(dim1=1, dim2=2)
    loss = (scores.logsumexp(2) - own).mean(0)
    return (loss + (scores.logsumexp(1) - own).mean(0)) / 2 if symmetric else loss


class NormedProjection(nn.Module):
    """A linear map of channels, if `learned`, and a batch normalisation: [B, C, g, g] to [B, width, g, g]."""

    def __init__(self, channels: int, width: int, learned: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width, bias=False) if learned else nn.Identity()
        self.norm = CellNorm(width, affine=False)

    def forward(self, maps: Tensor) -> Tensor:
        """One matrix product over all samples and cells."""
        batch, channels, height, width = maps.shape
        tokens = maps.permute(0, 2, 3, 1).reshape(-1, channels)
        projected: Tensor = self.norm(precise(self.linear(tokens)))
        return projected.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


class LFCC(SampleObjective):
    """The mean contrast over pairs of blocks and scales. scales: of each pair."""

    def __init__(self, pairs: list[BlockPair], scales: list[tuple[int, ...]], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.scales, self.low_pass = pairs, scales, low_pass
        self.temperature, self.symmetric = options.temperature, options.symmetric
        width = options.width
        self.student_projectors = nn.ModuleList(
            NormedProjection(pair.student_shape[0], width or pair.teacher_shape[0]) for pair in pairs
        )
        self.teacher_projectors = nn.ModuleList(
            NormedProjection(pair.teacher_shape[0], width or pair.teacher_shape[0], learned=width is not None)
            for pair in pairs
        )
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `contrast`."""
        same = batch.sample[:, None] == batch.sample[None, :]
        same.fill_diagonal_(False)
        of_student: list[Tensor] = []
        of_teacher: list[Tensor] = []
        for pair, scales, student_projector, teacher_projector in zip(
            self.pairs, self.scales, self.student_projectors, self.teacher_projectors, strict=True
        ):
            teacher_map = teacher.features[pair.teacher]
            s = student_projector(lowpass(student.features[pair.student], teacher_map.shape[-1], self.low_pass))
            t = teacher_projector(teacher_map)
            of_student += [lowpass(s, scale, self.low_pass).flatten(1) for scale in scales]
            of_teacher += [lowpass(t, scale, self.low_pass).flatten(1) for scale in scales]
        return {"contrast": contrast(of_student, of_teacher, same, self.temperature, self.symmetric)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; leaves out scales finer than the student's map, refuses those finer than the cached."""
    pairs = pair_blocks(student, teacher, options.blocks, key)
    scales: list[tuple[int, ...]] = []
    notes: list[str] = []
    coarse: list[BlockPair] = []
    for pair in pairs:
        own, cached = min(pair.student_shape[1:]), min(pair.teacher_shape[1:])
        fitting = tuple(scale for scale in options.scales if scale <= own)
        finer = [str(scale) for scale in options.scales if scale > own]
        size = "{} x {}".format(*pair.student_shape[1:])
        if not fitting:
            what, fix = (
                f"all are finer than the student's {pair.student}, {size}",
                "add scale 1, or name other `blocks`",
            )
            raise ConfigError([Problem(f"{key}.scales", what, got=str(options.scales), fix=fix)])
        if finer:
            left_out = f"scale{'s' if len(finer) > 1 else ''} {' and '.join(finer)}"
            notes.append(f"leaves out {left_out} at the student's {pair.student}, whose map has only {size} places")
        if max(fitting) > cached:
            coarse.append(pair)
        scales.append(fitting)
    if coarse:
        pair = min(coarse, key=lambda pair: min(pair.teacher_shape[1:]))
        what = "a scale is finer than the cached map of {}, {} x {}".format(pair.teacher, *pair.teacher_shape[1:])
        fix = f"use scales up to {min(pair.teacher_shape[1:])}, or cache a finer `signals.features.grid`"
        raise ConfigError([Problem(f"{key}.scales", what, got=str(options.scales), fix=fix)])
    objective = LFCC(pairs, scales, options, teacher.filter)
    objective.notes = tuple(notes)
    return objective
