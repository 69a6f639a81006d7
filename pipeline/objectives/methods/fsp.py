"""FSP: the student goes from block to block as the teacher does.

Yim, Joo, Bae and Kim, "A Gift from Knowledge Distillation: Fast Optimization, Network Minimization and Transfer
Learning", CVPR 2017. The flow of solution procedure between a block and the next deeper one, over places i:

    G_k(c, d) = (1 / H W) Σ_i F_k(c, i) F_{k+1}(d, i),   L = Σ_k mean over b, c, d of ( G_s,k - G_t,k )²

The larger map is low-passed to the smaller one's size, as in RepDistiller; the paper takes the largest of a cell.
Weight 50, in a stage of its own, of 30 epochs, before the student learns from labels alone (RepDistiller); here it may
stand beside hard labels and end early: `schedule: {off_after: 0.1}`. RepDistiller has one more flow, from the stem to
the first block; there is no tap at a stem.

The paper needs networks of equal widths. Where they differ, a learned matrix A_k for every block k, without bias, maps
the student's channels to the teacher's: A_k G_s,k A_{k+1}ᵀ is the FSP matrix of its maps behind 1 x 1 convolutions A.

Approximate offline by default: with `signal: features` all maps are low-passed first, and as products do not commute,
what is compared is the flow of low frequencies, another objective. With `signal: extra` it is exact: the cache holds
the teacher's G_k of full maps, C_k C_{k+1} numbers (`signals: {extras: [fsp-matrix/block2]}`, between block2 and
block3), and the student's is computed from its full maps. It is exact, too, if cached grids are as large as the maps.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.extras import pair_extras
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import on_one_grid, pair_maps
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes, extract
from pipeline.signals.extra import find_extra

READS = ("features",)

EXTRA = "fsp-matrix"
Flows = list[tuple[tuple[str, str], tuple[str, ...]]]
"""Two blocks of the student's, and the teacher's: two, shallow to deep, or the one that a matrix is named after."""


class Options(Section):
    """signal: what is read of the teacher. blocks: the teacher's that flows begin at (of the `extra`), or lie between.

    By default all that are cached.
    """

    signal: Literal["features", "extra"] = "features"
    blocks: tuple[str, ...] | None = None


class FSP(SampleObjective):
    """The loss of every flow, summed. widths: of blocks of the student's, theirs and the teacher's."""

    def __init__(self, flows: Flows, widths: dict[str, tuple[int, int]], signal: str, low_pass: str) -> None:
        super().__init__()
        find_extra(EXTRA)  # here, so that no step looks for it
        self.flows, self.signal, self.low_pass = flows, signal, low_pass
        self.adapters = nn.ModuleDict(
            {block: nn.Linear(*pair, bias=False) for block, pair in widths.items() if pair[0] != pair[1]}
        )
        read = {f"features/{block}" for _, theirs in flows for block in theirs}
        extras = {f"extras/{EXTRA}/{theirs[0]}" for _, theirs in flows}
        self.needs = Needs(
            teacher=frozenset(read if signal == "features" else extras),
            student=frozenset(f"features/{block}" for own, _ in flows for block in own),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `flow`."""
        losses = []
        for own, theirs in self.flows:
            maps = [student.features[block] for block in own]
            if self.signal == "features":
                cached = [teacher.features[block] for block in theirs]
                grids = [on_one_grid(s, t, self.low_pass) for s, t in zip(maps, cached, strict=True)]
                maps, cached = ([pair[who] for pair in grids] for who in (0, 1))
                target = extract(EXTRA, *cached)
            else:
                target = teacher.extras[f"{EXTRA}/{theirs[0]}"]
            losses.append(squared_errors(self._adapted(extract(EXTRA, *maps), *own), target))
        return {"flow": torch.stack(losses).sum(0)}

    def _adapted(self, matrix: Tensor, shallow: str, deep: str) -> Tensor:
        """An FSP matrix of the student in the teacher's widths."""
        with torch.autocast(matrix.device.type, enabled=False):
            if deep in self.adapters:
                matrix = self.adapters[deep](matrix)
            if shallow in self.adapters:
                matrix = self.adapters[shallow](matrix.transpose(1, 2)).transpose(1, 2)
        return matrix


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses fewer than two of them."""
    widths: dict[str, tuple[int, int]] = {}
    if options.signal == "features":
        pairs = pair_maps(student, teacher, options.blocks, key)
        if len(pairs) < 2:
            what = "compares flows between two blocks or more, and there is one"
            fix = (
                "name more `blocks`, or add more to `features: {blocks: ...}` in `signals` and cache the teacher again"
            )
            raise ConfigError([Problem(key, what, got=pairs[0].teacher, fix=fix)])
        between: Flows = [((a.student, b.student), (a.teacher, b.teacher)) for a, b in pairwise(pairs)]
        widths = {pair.student: (pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs}
        return FSP(between, widths, options.signal, teacher.filter)
    flows: Flows = []
    for tap, (shallow, deep) in pair_extras(EXTRA, student, teacher, options.blocks, key).items():
        flows.append(((shallow, deep), (tap,)))
        for block, width in zip((shallow, deep), teacher.extras[f"{EXTRA}/{tap}"], strict=True):
            widths[block] = (student.features[block][0], width)
    return FSP(flows, widths, options.signal, teacher.filter)
