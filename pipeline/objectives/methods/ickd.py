"""ICKD: channels are alike in the student where they are in the teacher.

Liu, Huang, Lin, Xie, Wang, Chang and Liang, "Exploring Inter-Channel Correlation for Diversity-preserved Knowledge
Distillation", ICCV 2021, arXiv 2202.03680, the form for classification (ICKD-C). F are maps as [C, H W], the student's
by a learned connector of the teacher's width C:

    G = F Fᵀ,   Ĝ(c) = G(c) / |G(c)|   (row by row),   L = (1 / B C) Σ_b ‖ Ĝ_s(b) - Ĝ_t(b) ‖²

The last map, with weight 2.5 beside hard labels, without KD (authors' code); of several blocks the terms are summed.
The connector is a 1 x 1 convolution and a batch normalisation. Grids may differ: a sum over places is left of them.

Approximate offline by default: with `signal: features` both maps are low-passed first, and as products do not commute,
what is compared are correlations of the low frequencies, another objective. With `signal: extra` it is exact: the
cache holds Ĝ of the teacher's full map, C² numbers (`signals: {extras: [channel-gram/block3]}`), and the student's is
computed from its full map. It is exact, too, if the cached grid is as large as the map.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.extras import pair_extras
from pipeline.objectives.maps import Connector, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes, extract
from pipeline.signals.extra import find_extra

READS = ("features",)

EXTRA = "channel-gram"


class Options(Section):
    """signal: what is read of the teacher. blocks: the teacher's, default the deepest that is cached."""

    signal: Literal["features", "extra"] = "features"
    blocks: tuple[str, ...] | None = None


def inter_channel_losses(student: Tensor, teacher: Tensor) -> Tensor:
    """L of every sample [B], of Gram matrices [B, C, C] with rows of length one (`extract`)."""
    difference = precise(student) - precise(teacher)
    return difference.square().sum(2).mean(1)


class ICKD(SampleObjective):
    """The loss of every pair of blocks, summed. pairs: the teacher's blocks, and the student's to learn from each."""

    def __init__(self, pairs: dict[str, str], widths: list[tuple[int, int]], signal: str, low_pass: str) -> None:
        super().__init__()
        find_extra(EXTRA)  # here, so that no step looks for it
        self.pairs, self.signal, self.low_pass = pairs, signal, low_pass
        self.connectors = nn.ModuleList(Connector(*pair) for pair in widths)
        kind = "features" if signal == "features" else f"extras/{EXTRA}"
        self.needs = Needs(
            teacher=frozenset(f"{kind}/{block}" for block in pairs),
            student=frozenset(f"features/{block}" for block in pairs.values()),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `correlation`."""
        losses = []
        for (theirs, own), connector in zip(self.pairs.items(), self.connectors, strict=True):
            maps = student.features[own]
            if self.signal == "features":
                maps, target = on_one_grid(maps, teacher.features[theirs], self.low_pass)
                gram = extract(EXTRA, target)
            else:
                gram = teacher.extras[f"{EXTRA}/{theirs}"]
            with torch.autocast(maps.device.type, enabled=False):
                connected = connector(maps)
            losses.append(inter_channel_losses(extract(EXTRA, connected), gram))
        return {"correlation": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses those of which neither map nor Gram matrix is cached."""
    if options.signal == "features":
        found = pair_maps(student, teacher, options.blocks, key, deepest=True)
        pairs = {pair.teacher: pair.student for pair in found}
        widths = [(pair.student_shape[0], pair.teacher_shape[0]) for pair in found]
        return ICKD(pairs, widths, options.signal, teacher.filter)
    pairs = {theirs: own for theirs, (own,) in pair_extras(EXTRA, student, teacher, options.blocks, key).items()}
    if options.blocks is None:
        pairs = dict(list(pairs.items())[-1:])
    widths = [(student.features[own][0], teacher.extras[f"{EXTRA}/{theirs}"][0]) for theirs, own in pairs.items()]
    return ICKD(pairs, widths, options.signal, teacher.filter)
