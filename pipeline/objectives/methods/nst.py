"""NST: the patterns of places that neurons respond to are distributed alike in both networks.

Huang and Wang, "Like What You Like: Knowledge Distill via Neuron Selectivity Transfer", arXiv 1707.01219, with its
polynomial kernel. f_c is channel c of a map, flattened and of length one: a pattern of places. The squared maximum mean
discrepancy between the C_s patterns of the student and the C_t of the teacher, under k(x, y) = (x·y)², is

    L(b) = mean_{c,c'} k(t_c, t_c') + mean_{c,c'} k(s_c, s_c') - 2 mean_{c,c'} k(s_c, t_c')
         = ‖ (1/C_t) Σ_c t_c t_cᵀ - (1/C_s) Σ_c s_c s_cᵀ ‖²

a mean over the batch, summed over pairs of blocks, with weight 50 beside hard labels (RepDistiller). Widths may differ.
The second form is computed where places are fewer than channels: on a cached grid it costs next to nothing.

Approximate offline: lengths and squares do not commute with low-passing, so the patterns are those of the low-passed
maps of both networks, another objective. Exact if the cached grid is as large as the map (`signals.features.grid`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.maps import needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("features",)


class Options(Section):
    """blocks: the teacher's blocks, default all that are cached."""

    blocks: tuple[str, ...] | None = None


def selectivity_losses(student: Tensor, teacher: Tensor) -> Tensor:
    """L of every sample [B], of one pair of maps of one size, [B, C_s, h, w] and [B, C_t, h, w]."""
    s, t = (unit(precise(maps).flatten(2), 2) for maps in (student, teacher))
    with torch.autocast(s.device.type, enabled=False):
        if s.shape[2] <= max(s.shape[1], t.shape[1]):
            return (_outer_mean(t) - _outer_mean(s)).square().sum((1, 2))
        return _kernel(t, t).mean((1, 2)) + _kernel(s, s).mean((1, 2)) - 2 * _kernel(s, t).mean((1, 2))


def _outer_mean(patterns: Tensor) -> Tensor:
    return patterns.transpose(1, 2) @ patterns / patterns.shape[1]


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    return (one @ other.transpose(1, 2)).square()


class NST(SampleObjective):
    """The discrepancy of every pair of blocks, summed."""

    def __init__(self, pairs: list[BlockPair], low_pass: str) -> None:
        super().__init__()
        self.pairs, self.low_pass = pairs, low_pass
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `selectivity`."""
        losses = [
            selectivity_losses(
                *on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            )
            for pair in self.pairs
        ]
        return {"selectivity": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of one cell, where every channel is the same pattern."""
    return NST(pair_maps(student, teacher, options.blocks, key, cells=2), teacher.filter)
