"""AttnFD: maps refined by attention to channels and places are brought together.

Mansourian, Jalali, Ahmadi and Kasaei, "Attention-guided Feature Distillation for Semantic Segmentation", arXiv
2403.05451, and the authors' code. CBAM refines a map by a gate of channels, then one of places, σ the sigmoid:

    F' = F ⊙ σ(g(mean over places of F) + g(max over places of F)),   A = F' ⊙ σ(h(max over c of F', mean over c of F'))
    L = Σ_k (1/B) ‖ A_s^k / ‖A_s^k‖ - A_t^k / ‖A_t^k‖ ‖²

The student's g (C to C/r to C by way of a ReLU) and h (a 7 x 7 convolution, batch normalisation) are learned, and a
1 x 1 convolution with batch normalisation brings its A to the teacher's channels; the teacher's g is the identity and
its h the sum: no parameters. The norm is of the whole batch's tensor, so the term is at most 4/B for each block, and is
divided by B on top of that: the weight is to be chosen with the batch size.

For segmentation; here for classification, on the two deepest cached blocks unless `blocks` names others. g has 8
hidden channels at least, narrow students would have one otherwise. Authors' weight: 2, beside the task's loss.
Approximate offline: the largest value of a low-passed map is not that of the map, so the teacher's gates differ;
student's maps are reduced to the cached grid before they are refined, to be gated alike. Exact if the cached grid is
as large as the map (`signals.features.grid`). Read after activation, as in the reference.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.layers import Convolution
from pipeline.objectives.maps import Connector, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("features",)

HIDDEN = 8
"""The fewest hidden channels of the student's gate of channels."""


class Options(Section):
    """blocks: the teacher's, default the two deepest that are cached. reduction: r, of the gate of channels."""

    blocks: tuple[str, ...] | None = None
    reduction: int = Field(16, gt=0)


def plainly_refined(maps: Tensor) -> Tensor:
    """A of maps [B, C, h, w] by gates without parameters, as the teacher's."""
    x = precise(maps)
    x = x * (x.mean((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True)).sigmoid()
    return x * (x.amax(1, keepdim=True) + x.mean(1, keepdim=True)).sigmoid()


def refined_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The squared distance of two whole tensors [B, C, h, w] of length one, divided by B."""
    s, t = unit(precise(student).flatten(), 0), unit(precise(teacher).flatten(), 0)
    return (s - t).square().sum() / len(student)


class Refinement(nn.Module):
    """The student's learned gates: [B, C, h, w] to the same."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = max(HIDDEN, channels // reduction)
        self.channels = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.places = Convolution(2, 1, 7)

    def forward(self, maps: Tensor) -> Tensor:
        """In at least float32, but for the products."""
        x = precise(maps)
        scores = precise(self.channels(x.mean((2, 3)))) + precise(self.channels(x.amax((2, 3))))
        x = x * scores.sigmoid()[..., None, None]
        gate: Tensor = self.places(torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1))
        return x * gate.sigmoid()


class AttnFD(Objective):
    """The sum of the blocks' distances between refined maps."""

    def __init__(self, pairs: list[BlockPair], reduction: int, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.low_pass = pairs, low_pass
        self.refinements = nn.ModuleList(Refinement(pair.student_shape[0], reduction) for pair in pairs)
        self.connectors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `refined`."""
        losses = []
        for pair, refinement, connector in zip(self.pairs, self.refinements, self.connectors, strict=True):
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            losses.append(refined_loss(connector(refinement(s)), plainly_refined(t)))
        return {"refined": torch.stack(losses).sum()}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of other proportions, and of a single place, of which there is no choice."""
    cached = pair_maps(student, teacher, options.blocks, key)
    chosen = tuple(pair.teacher for pair in (cached if options.blocks else cached[-2:]))
    return AttnFD(pair_maps(student, teacher, chosen, key, cells=2), options.reduction, teacher.filter)
