"""ReviewKD: every block of the teacher taught to the student's block and all deeper ones, fused from deep to shallow.

Chen, Liu, Zhao and Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044. From the deepest
level to the shallowest, with conv a 1 x 1 and conv' a 3 x 3 convolution, each with a batch normalisation, U the
nearest-neighbour enlargement and a, b maps of weights, sigmoids of one 1 x 1 convolution of both summands:

    Y_k = a ⊙ conv_k(F_s^k) + b ⊙ U(Y_{k+1}),   L = Σ_k HCL(conv'_k(Y_k), F_t^k)
    HCL(x, y) = Σ_l w_l mean (low_l(x) - low_l(y))² / Σ_l w_l   over the whole grid and grids of 4, 2, 1 below it,

with w = 1 for the whole grid and half as much for each coarser one. The deepest level of all is the embedding of both
networks as a 1 x 1 map (`embedding: false` leaves it out), which has nothing deeper to fuse with.

Approximate offline, in three ways. The reference reads the teacher's maps before activation, the cache holds those
after it: what would be negative is 0, so the student is not told how far from firing the teacher was. It is the same
loss of other targets, not a meaningless one; the outputs have no activation and may be negative where the targets
are not. The student's maps are read after activation, too, where the reference has them before. They are reduced to
the cached grid first and fused there, not at their own size. And HCL's whole grid is the cached one: with 4 x 4 cells
of an 8 x 8 map the finest level is missing, which has half the weight; the levels 4, 2 and 1 are exact, with weights 1,
1/2, 1/4. Levels are reduced by the cache's filter (`mean` is the reference's wherever sizes divide). Widths between are
the student's embedding's, at most `width`.

Authors' recipe: beside hard labels with weight 1, with a linear warm-up over the first 20 of 240 epochs
(`schedule: {warmup: 0.083}`); the weight differs by pair, 5 for ResNet-32x4 to ResNet-8x4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.layers import Convolution, Mixture
from pipeline.objectives.maps import Connector, hierarchical_contexts, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("embedding", "features")


class Options(Section):
    """blocks: the teacher's, default all that are cached. embedding: whether embeddings are the deepest level.

    width: the most channels that are fused.
    """

    blocks: tuple[str, ...] | None = None
    embedding: bool = True
    width: int = Field(512, gt=0)


class Fusion(nn.Module):
    """One level: maps [B, C, g, g] and what the deeper level passed on, [B, width, ...], to both outputs."""

    def __init__(self, channels: int, width: int, outputs: int, deepest: bool) -> None:
        super().__init__()
        self.inner, self.outer = Connector(channels, width), Convolution(width, outputs, 3)
        self.weigh = None if deepest else Mixture(2 * width, 2)

    def forward(self, maps: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output in the teacher's channels, and the fused map for the next level."""
        fused: Tensor = self.inner(maps)
        if self.weigh is not None and deeper is not None:
            enlarged = F.interpolate(deeper, fused.shape[2:])
            weights = precise(self.weigh(torch.cat((fused, enlarged), dim=1))).sigmoid()
            fused = fused * weights[:, :1] + enlarged * weights[:, 1:]
        return self.outer(fused), fused


class ReviewKD(SampleObjective):
    """The sum of the levels' hierarchical context losses."""

    def __init__(self, pairs: list[BlockPair], widths: tuple[int, int] | None, width: int, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.embedding, self.low_pass = pairs, widths is not None, low_pass
        sizes = [(pair.student_shape[0], pair.teacher_shape[0]) for pair in reversed(pairs)]
        sizes = [widths, *sizes] if widths else sizes
        width = min(width, sizes[0][0])
        self.levels = nn.ModuleList(Fusion(s, width, t, index == 0) for index, (s, t) in enumerate(sizes))
        self.needs = needs_of(pairs, *(("embedding",) if widths else ()))

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `review`."""
        maps = [
            on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            for pair in reversed(self.pairs)
        ]
        if self.embedding:
            assert student.embedding is not None
            assert teacher.embedding is not None
            maps = [(student.embedding[..., None, None], teacher.embedding[..., None, None]), *maps]
        losses: list[Tensor] = []
        deeper: Tensor | None = None
        for level, (s, t) in zip(self.levels, maps, strict=True):
            output, deeper = level(s, deeper)
            losses.append(hierarchical_contexts(output, t, self.low_pass))
        return {"review": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of other proportions, and networks without embeddings unless they are left out."""
    pairs = pair_maps(student, teacher, options.blocks, key)
    widths = embedding_widths(student, teacher, key) if options.embedding else None
    return ReviewKD(pairs, widths, options.width, teacher.filter)
