"""FitNet: the student's intermediate map, projected, is the teacher's.

Romero, Ballas, Kahou, Chassang, Gatta and Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550,
with the mean over elements of RepDistiller and mdistiller:

    L = mean over b, c, i of ( r(F_s)(b, c, i) - F_t(b, c, i) )²

i are cells and r is a learned regressor. Their hint is the second block, with weight 100 beside hard labels from the
first step on; the paper pre-trains the student up to the hint by it alone, first.

Deviation: r is a 1 x 1 convolution and a batch normalisation, which is theirs for maps of one size but for the ReLU
behind it. Without one r is linear, so that regressing the low frequencies gives the low frequencies of the regressed
map; and maps of tokens and other filters than `mean` have negative values, which a ReLU cannot meet. Other sizes are
low-passed, where theirs are strided or transposed convolutions.

Approximate offline: the squared error of low-passed maps is that of the low frequencies alone, never more than of all
(with `mean` and `dct`). Exact if the cached grid is as large as the map (`signals.features.grid`).
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import Connector, needs_of, on_one_grid, pair_maps
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features",)


class Options(Section):
    """blocks: the teacher's blocks that are hints; of several, the terms are summed."""

    blocks: tuple[str, ...] = Field(("block2",), min_length=1)


class FitNet(SampleObjective):
    """The hints' losses, summed over pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], low_pass: str) -> None:
        super().__init__()
        self.pairs, self.low_pass = pairs, low_pass
        self.regressors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `hint`."""
        losses = []
        for pair, regressor in zip(self.pairs, self.regressors, strict=True):
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            losses.append(squared_errors(regressor(s), t))
        return {"hint": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses hints that are not cached."""
    return FitNet(pair_maps(student, teacher, options.blocks, key), teacher.filter)
