"""SP: samples that are alike to the teacher are alike to the student.

Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682. Q [B, D] are the
flattened maps of a batch, and

    G = Q Qᵀ,   Ĝ(i) = G(i) / |G(i)|   (row by row),   L = (1/B²) ‖ Ĝ_t - Ĝ_s ‖²

G is [B, B] whatever the networks are, so neither widths nor grids need to agree. The last map, with weight 3000 beside
hard labels (RepDistiller); of several blocks the terms are summed.

Approximate offline: inner products of low-passed maps are those of the low frequencies alone, for squares do not
commute with low-passing. So both maps are low-passed, to one grid. Exact if the cached grid is as large as the map
(`signals.features.grid`), which the last map of a small network may well be. There is no smaller signal that would do:
a row of G depends on the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.maps import needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("features",)


class Options(Section):
    """blocks: the teacher's blocks, default the deepest that is cached."""

    blocks: tuple[str, ...] | None = None


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L of one pair of maps, [B, ...] each, of any sizes."""
    difference = _similarities(student) - _similarities(teacher)
    return difference.square().sum() / len(student) ** 2


def _similarities(maps: Tensor) -> Tensor:
    rows = precise(maps).flatten(1)
    with torch.autocast(rows.device.type, enabled=False):
        return unit(rows @ rows.T, 1)


class SP(Objective):
    """The loss of every pair of blocks, summed."""

    def __init__(self, pairs: list[BlockPair], low_pass: str) -> None:
        super().__init__()
        self.pairs, self.low_pass = pairs, low_pass
        self.needs = needs_of(pairs)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `similarity`."""
        losses = [
            similarity_loss(*on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass))
            for pair in self.pairs
        ]
        return {"similarity": torch.stack(losses).sum()}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses those that are not cached."""
    return SP(pair_maps(student, teacher, options.blocks, key, deepest=True), teacher.filter)
