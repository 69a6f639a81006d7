"""UFD: what maps say everywhere alike and where they differ, over places and over channels, each in its direction.

UFD-KD (lusilili/UFD-KD, "unified frequency domain"; there is code, and no paper was found). The code transforms maps by
a DCT over places, and over channels, keeps the coefficient 0 alone (DC) or all others (AC), and transforms back. DC is
then the mean, and AC what is left without it. With x_i,c a map, P places, C channels, and n(v) = v / |v|:

    spatial:  DC_i,c = mean over places of x_c,   AC = x - DC;   Σ_i | n(DC_s,i) - n(DC_t,i) |²,  vectors over channels
    channel:  DC_i,c = mean over channels of x_i, AC = x - DC;   Σ_c | n(DC_s,c) - n(DC_t,c) |²,  vectors over places

    L = mean over samples of α1 · spatial DC + α2 · spatial AC + α3 · channel DC + α4 · channel AC

As written, and as in the code, vectors of the spatial terms are those of a place and vectors of the channel terms those
of a channel. Sums, not means: a term grows with the number of places, or channels. α are the code's for ImageNet; for
segmentation it has (0.03, 0.035, 0.005, 0.0035). It reads no label. Beside it stand hard labels and KD at temperature
1 with weight 1/2; its stages are the last two. It names pairs of families, such as ViT-S to ResNet-18, and no results.

Deviation: the student's map is brought to the teacher's width by a 1 x 1 convolution with batch normalisation, where
the code has attention with positions. A vector of zeros, or of what rounding leaves of one, has no direction, and is 0.

Approximate offline, at the cached grid: the spatial DC term is exact but for the number of places, since the mean of
cells is that of the map; AC and channel terms are those of the low frequencies. Exact where the grid is as large as
the map.
"""

from __future__ import annotations

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.maps import Connector, needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("features",)

ROUNDING = 1e-6
"""What is left without the mean, and is no more than this share of all, is rounding: it has no direction."""

TERMS = ("spatial_dc", "spatial_ac", "channel_dc", "channel_ac")


class Options(Section):
    """weights: α of spatial DC, spatial AC, channel DC and channel AC. blocks: the teacher's, default the last two."""

    weights: tuple[NonNegativeFloat, NonNegativeFloat, NonNegativeFloat, NonNegativeFloat] = (
        0.03,
        0.065,
        0.003,
        0.0065,
    )
    blocks: tuple[str, ...] | None = None


def frequency_errors(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four sums of every sample, [B] each, in the order of `TERMS`; of maps [B, C, h, w]."""
    both = torch.stack((precise(student).flatten(2), precise(teacher).flatten(2)))
    _, _, channels, places = both.shape
    of_places, of_channels = both.mean(3, keepdim=True), both.mean(2, keepdim=True)

    def rest(mean: Tensor, dim: int) -> Tensor:
        left = both - mean
        length, whole = (torch.linalg.vector_norm(x, dim=dim, keepdim=True) for x in (left.detach(), both.detach()))
        return left.masked_fill(length <= ROUNDING * whole, 0)

    def apart(x: Tensor, dim: int) -> Tensor:
        of_student, of_teacher = unit(x, dim)
        distance: Tensor = (of_student - of_teacher).square().flatten(1).sum(1)
        return distance

    return (
        places * apart(of_places, 2),
        apart(rest(of_places, 2), 2),
        channels * apart(of_channels, 3),
        apart(rest(of_channels, 3), 3),
    )


class UFD(SampleObjective):
    """The four weighted terms, summed over pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.weights, self.low_pass = pairs, options.weights, low_pass
        self.projectors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Four terms, each with its weight."""
        found = []
        for pair, projector in zip(self.pairs, self.projectors, strict=True):
            s, t = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
            found.append(frequency_errors(projector(s), t))
        named = zip(TERMS, self.weights, zip(*found, strict=True), strict=True)
        return {term: weight * torch.stack(errors).sum(0) for term, weight, errors in named}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of one place, which have no AC, and of other proportions."""
    pairs = pair_maps(student, teacher, options.blocks, key, cells=2)
    return UFD(pairs if options.blocks is not None else pairs[-2:], options, teacher.filter)
