"""Token Gram: places of an image are alike in the student where they are in the teacher, by their features.

The local term of LightlyTrain's distillation v3 (lightly-ai/lightly-train; a product, there is no paper). x_i are the
features at place i of a map, at length one; the student's map is projected to the teacher's width first:

    S = x xᵀ  [P, P] of one image,   L = (1 / B P) Σ_b Σ_i KL( softmax(S_t(b)_i / τ) ‖ softmax(S_s(b)_i / τ) )

τ = 0.07, without a factor τ². The diagonal is in S: with so small a temperature a row is nearly its own place alone
where features of places differ. It reads no label. It is the idea of `icd` with features in place of local logits, and
needs no head. In v3 it stands, with the same weight, beside the KL of embeddings over a queue (`queue-kl`).

A student's map that is coarser than the teacher's is enlarged bilinearly, as there. One that is finer is low-passed by
the cache's filter, where the code takes the bilinear value between pixels: from a cache the teacher's places are means
of cells, and so are the student's. Widths need not agree for S; `project: false` leaves the projection out. A place
that is zero in all channels is like no other, itself included, and has the usual gradient, where the code's is 10¹²
times as large.

Approximate offline: cosines of means of cells are not means of cosines. Exact where the grid is as large as the map,
as it is for many ViTs with `signals.features.grid` of 14 or 16.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.layers import Mixture
from pipeline.objectives.maps import needs_of, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.signals.unit import unit

READS = ("features",)


class Options(Section):
    """temperature: τ > 0. blocks: the teacher's, default the deepest that is cached. project: the student's maps."""

    temperature: float = Field(0.07, gt=0)
    blocks: tuple[str, ...] | None = None
    project: bool = True


def token_relations(maps: Tensor) -> Tensor:
    """S: the cosines of all places of each map, [B, C, h, w] to [B, h·w, h·w], in at least float32."""
    tokens = unit(precise(maps).flatten(2), 1)
    with torch.autocast(tokens.device.type, enabled=False):
        return tokens.transpose(1, 2) @ tokens


def relation_divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """L of every sample [B], in nats, of maps [B, C, h, w] and [B, D, h, w] on one grid."""
    s, t = (token_relations(maps) / temperature for maps in (student, teacher))
    return kl_divergence(s, t).mean(1)


class TokenGram(SampleObjective):
    """The divergence of relations, summed over pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.temperature, self.low_pass = pairs, options.temperature, low_pass
        self.projectors = nn.ModuleList(
            Mixture(pair.student_shape[0], pair.teacher_shape[0], bias=False) if options.project else nn.Identity()
            for pair in pairs
        )
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `relations`."""
        losses = []
        for pair, projector in zip(self.pairs, self.projectors, strict=True):
            t = teacher.features[pair.teacher]
            s = precise(projector(lowpass(student.features[pair.student], max(t.shape[2:]), self.low_pass)))
            if s.shape[2:] != t.shape[2:]:
                s = F.interpolate(s, t.shape[2:], mode="bilinear")
            losses.append(relation_divergence(s, t, self.temperature))
        return {"relations": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of one place, and of other proportions."""
    pairs = pair_maps(student, teacher, options.blocks, key, deepest=True, cells=2)
    return TokenGram(pairs, options, teacher.filter)
