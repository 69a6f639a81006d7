"""OFD: the teacher's responses are matched, and where it has none the student must only have none either.

Heo, Kim, Yun, Park, Kwak and Choi, "A Comprehensive Overhaul of Feature Distillation", ICCV 2019, arXiv 1904.01866.
With s the student's map through a 1 x 1 convolution and batch normalisation, t the teacher's before activation, and
the margin m < 0, a channel's mean of negative responses:

    d(s, t) = 0 if t <= 0 and s <= max(t, m), else (s - max(t, m))²
    L = Σ_k 2^(k-K) (1/B) Σ_b Σ_c,i d(s, t),   blocks k = 1 ... K, the deepest whole

Approximate offline, and what reading after activation changes. The cache holds maps after activation: a response is
exact where it is positive, and every other one is 0, of which only the sign is known. The margin is what the paper
puts in place of negative responses that do not matter, and here it stands for all of them: t = 0 counts as m. Lost is
only what lies between m and 0. Maps with negative values (of tokens, or before activation) are read as they are. The
student's map is after activation, too, where the reference reads it before: s is negative by its convolution alone.
Only with the filter `mean` is a cell 0 where nothing responds: others are refused.

m is a constant in the reference, from the teacher's batch normalisation before the activation; a cache has none. It is
estimated from the batch: `margin` times a channel's mean over samples and cells of max(t, 0). For responses that are
symmetric about 0, E[t | t < 0] = -2 E[max(t, 0)] exactly: -2 is the default, and means survive low-passing. The share
of zeros would tell how far from symmetric they are, but does not survive it: a cell is 0 only where all of its pixels
are. So a cell with one firing pixel of many counts as a small response to be matched.
`margin: 0` takes 0 for 0: the student's negative values are then free.

The sum is over cells: a 4 x 4 grid has a quarter of the cells of 8 x 8. Authors' weight: 0.001, beside hard labels with
weight 1; four times that is the same pull on a map of 8 x 8 cached as 4 x 4.
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


class Options(Section):
    """blocks: the teacher's, default all that are cached. margin: in means of a channel's positive part."""

    blocks: tuple[str, ...] | None = None
    margin: float = Field(-2.0, le=0)


def partial_distance(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """d of every element. student, teacher: responses before activation; margin: at most 0, broadcast to them."""
    s, t = precise(student), precise(teacher)
    target = torch.maximum(t, margin)
    counts = (t > 0) | (s > target)
    return (s - target).square() * counts


def responses(teacher: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """The teacher's responses with m for 0, and m: of maps [B, C, h, w], [B, C, h, w] and [C, 1, 1]."""
    t = precise(teacher)
    m = margin * t.clamp(min=0).mean((0, 2, 3))[:, None, None]
    return torch.where(t == 0, m, t), m


class OFD(SampleObjective):
    """The weighted sum of the blocks' partial distances. The margins are of the batch, as batch normalisation is."""

    def __init__(self, pairs: list[BlockPair], margin: float, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.margin, self.low_pass = pairs, margin, low_pass
        self.connectors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `overhaul`."""
        losses = []
        for depth, (pair, connector) in enumerate(zip(self.pairs, self.connectors, strict=True), start=1):
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            distance = partial_distance(connector(s), *responses(t, self.margin))
            losses.append(distance.flatten(1).sum(1) / 2 ** (len(self.pairs) - depth))
        return {"overhaul": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of other proportions, and filters other than `mean`, which leave no cell at 0."""
    pairs = pair_maps(student, teacher, options.blocks, key)
    require_active_places(teacher, key)
    return OFD(pairs, options.margin, teacher.filter)
