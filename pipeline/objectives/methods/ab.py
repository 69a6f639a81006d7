"""AB: neurons are active in the student where they are in the teacher, by a margin.

Heo, Lee, Yun and Choi, "Knowledge Transfer via Distillation of Activation Boundaries Formed by Hidden Neurons", AAAI
2019, arXiv 1811.03233. s is what a learned connector makes of the student's map, of the teacher's width; t is the
teacher's map:

    ℓ(s, t) = max(0, m - s)² if t > 0,   max(0, m + s)² otherwise
    L = Σ_k 2^(k - K) · (3/1000) · (1/B) Σ over b, c, i of ℓ(s_k(b, c, i), t_k(b, c, i))

i are cells, m = 1 is the margin, and k counts the K pairs of blocks from 1, the shallowest: the deepest weighs 1.
Constants after RepDistiller. There the student's blocks learn from it alone for 30 epochs, and then for 240 from hard
labels alone; here it may stand beside hard labels and end early: `schedule: {off_after: 0.1}`.

Deviations. The sign of t is read from maps after the activation, which have the same where that is a ReLU. The
connector, a 1 x 1 convolution and a batch normalisation, is there for equal shapes too, where the reference has none:
its inputs, after the student's activation, would never be negative.

Approximate offline: signs do not commute with low-passing. A mean of values that are not negative is positive where
one of them is, so what is learnt is whether a neuron is active anywhere in a cell of the cached grid, hence with
`mean` alone. Exact if the cached grid is as large as the map (`signals.features.grid`). The sum has as many elements as
the grid: on g x g cells of a map of H x W the term is g² / (H W) of that of full maps, and a weight for those is to be
multiplied by H W / g². That is another number for every block, 4 for 8 x 8 cached as 4 x 4 and 64 for 32 x 32, so
shallow blocks weigh less, beside the deepest, than their 2^(k - K) of full maps says.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.maps import Connector, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_active_places
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features",)

SCALE = 3 / 1000


class Options(Section):
    """margin: m > 0. blocks: the teacher's blocks, default all that are cached."""

    margin: float = Field(1.0, gt=0)
    blocks: tuple[str, ...] | None = None


def boundary_losses(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """ℓ of every sample [B], summed over elements, without constants. [B, C, h, w] each."""
    side = (precise(teacher) > 0).to(student.dtype) * 2 - 1
    return precise(margin - side * student).relu().square().flatten(1).sum(1)


class AB(SampleObjective):
    """The weighted losses of all pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], margin: float) -> None:
        super().__init__()
        self.pairs, self.margin = pairs, margin
        self.connectors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `boundary`."""
        losses = []
        for depth, (pair, connector) in enumerate(zip(self.pairs, self.connectors, strict=True), 1):
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], "mean")
            losses.append(2.0 ** (depth - len(self.pairs)) * SCALE * boundary_losses(connector(s), t, self.margin))
        return {"boundary": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses other filters than `mean`, which do not keep signs."""
    pairs = pair_maps(student, teacher, options.blocks, key)
    require_active_places(teacher, key)
    return AB(pairs, options.margin)
