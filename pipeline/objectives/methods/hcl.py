"""HCL: the student's stages are mixed by attention before each is compared with the teacher's, coarse and fine.

The half of PAT that a cache can serve: Lin, Yao, Hsu, Xie, Shuai and Cheng, "Perspective-Aware Teaching: Adapting
Knowledge for Heterogeneous Distillation", ICCV 2025, arXiv 2501.08885 (first called FOFA). Each stage k of the student
becomes r² tokens of a `width`, r = `grid`: patches of its map, each mapped linearly (`objectives/attention.py`). All
tokens of all stages attend to each other (region-aware attention), and those of stage k are then a map again:

    (Y_1, ..., Y_S) = attention(tokens(F_s^1), ..., tokens(F_s^S)),   L = Σ_k HCL( conv_k(norm(U(Y_k))), F_t^k )
    HCL(x, y) = Σ_l w_l mean (low_l(x) - low_l(y))² / Σ_l w_l   over the whole grid and grids of 4, 2, 1 below it,

with w = 1 for the whole grid and half as much for each coarser one, as in `reviewkd`; U enlarges by the nearest place,
norm is a batch normalisation, and conv_k a 1 x 1 convolution to the teacher's width. The authors' constants: 64 tokens
of 4 stages, so r = 4, width 512, 8 heads; weight 1 beside hard labels and KD at temperature 1. Their ablation
(ConvNeXt-T to DeiT-T, CIFAR-100): 60.71 by maps alone, 70.12 with this attention, and 79.59 with their prompts, which
train inside the teacher and cannot be had from a cache. KD alone has 72.99 there: use it beside `kd` or `rsd`.

After the authors' code (jimmylin0979/PAT), with these deviations. Its sines for places are taken at the number of a
sample in the batch, not of a token, so that its attention knows no places; here tokens have them. For teachers whose
maps are tokens the code maps numbers of tokens linearly, too; here all maps are alike. The stages that are mixed are
those that the teacher has a cached partner for, or those that `mixed` names, where the code has four. Tokens are no
wider than the widest map that they are compared with, unless a `width` is named: 512 for most teachers of ImageNet. A
grid that is coarser than r has means of the tokens. Patches of large maps have many weights: those of 64 maps of
56 x 56 places are 6.4 million at width 512, of 14 million that the paper has in all.

Approximate offline: HCL's whole grid is the cached one; with 4 x 4 cells the finest level is missing, and the levels 4,
2 and 1 are exact, with weights 1, 1/2 and 1/4. Exact where the grid is as large as the map.
"""

from __future__ import annotations

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.objectives.attention import Patches, TokenAttention
from pipeline.objectives.base import Batch, BlockPair, Context, Needs, Objective, pair_blocks
from pipeline.objectives.layers import Mixture
from pipeline.objectives.maps import CellNorm, hierarchical_contexts
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

READS = ("features",)

WIDEST = 512
"""The authors' width of a token."""


class Options(Section):
    """blocks: the teacher's, default all that are cached. mixed: the student's that are mixed, default their partners.

    grid: r, tokens a side of each. width: of a token, a multiple of `heads`; default the width of the teacher's widest
    map, 512 at most, rounded up to such a multiple. heads: of the attention.
    """

    blocks: tuple[str, ...] | None = None
    mixed: tuple[str, ...] | None = None
    grid: int = Field(4, gt=0)
    width: int | None = Field(None, gt=0)
    heads: int = Field(8, gt=0)

    @model_validator(mode="after")
    def _divided(self) -> Self:
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")
        return self


class Aligner(nn.Module):
    """Maps a stage's tokens [B, r², width] to [B, D, h, w]: the nearest token of each place, normalised, and linear."""

    def __init__(self, width: int, grid: int, teacher: tuple[int, int, int]) -> None:
        super().__init__()
        self.grid, self.size = grid, teacher[1:]
        self.norm, self.linear = CellNorm(width), Mixture(width, teacher[0], bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """In at least float32."""
        maps = tokens.transpose(1, 2).reshape(len(tokens), -1, self.grid, self.grid)
        fitting = F.interpolate(lowpass(maps, max(self.size)), self.size)
        return precise(self.linear(self.norm(fitting)))


class HCL(SampleObjective):
    """The sum of the hierarchical context losses of all pairs of blocks, after attention among the student's."""

    def __init__(self, pairs: list[BlockPair], mixed: dict[str, tuple[int, int, int]], options: Options, low_pass: str):
        super().__init__()
        self.pairs, self.mixed, self.each, self.low_pass = pairs, tuple(mixed), options.grid**2, low_pass
        widest = min(WIDEST, max(pair.teacher_shape[0] for pair in pairs))
        width = options.width or -(-widest // options.heads) * options.heads
        self.patches = nn.ModuleList(Patches(shape, options.grid, width) for shape in mixed.values())
        self.attention = TokenAttention(len(mixed) * self.each, width, options.heads)
        self.aligners = nn.ModuleList(Aligner(width, options.grid, pair.teacher_shape) for pair in pairs)
        self.needs = Needs(
            teacher=frozenset(f"features/{pair.teacher}" for pair in pairs),
            student=frozenset(f"features/{block}" for block in mixed),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `contexts`."""
        tokens = [patch(student.features[block]) for block, patch in zip(self.mixed, self.patches, strict=True)]
        stages = dict(zip(self.mixed, self.attention(torch.cat(tokens, 1)).split(self.each, 1), strict=True))
        losses = [
            hierarchical_contexts(align(stages[pair.student]), teacher.features[pair.teacher], self.low_pass)
            for pair, align in zip(self.pairs, self.aligners, strict=True)
        ]
        return {"contexts": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses blocks to mix that the student does not have, or that leave out a paired one."""
    pairs = pair_blocks(student, teacher, options.blocks, key)
    paired = [pair.student for pair in pairs]
    mixed = paired if options.mixed is None else options.mixed
    problems = [unknown_name(f"{key}.mixed", name, student.features) for name in mixed if name not in student.features]
    if left_out := [name for name in paired if name not in mixed]:
        what = f"leaves out {', '.join(left_out)}, which learn from blocks of the teacher"
        problems.append(Problem(f"{key}.mixed", what, fix="add them, or name fewer `blocks`"))
    if problems:
        raise ConfigError(problems)
    shapes = {name: shape for name, shape in student.features.items() if name in mixed}
    return HCL(pairs, shapes, options, teacher.filter)
