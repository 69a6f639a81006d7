"""AT: the student attends to the places that the teacher attends to.

Zagoruyko and Komodakis, "Paying More Attention to Attention: Improving the Performance of Convolutional Neural Networks
via Attention Transfer", ICLR 2017, arXiv 1612.03928, with activations and exponent 2. i are places:

    A(i) = mean_c F(c, i)²,   Q = A / |A|,   L = Σ_k mean over b, i of ( Q_s,k(b, i) - Q_t,k(b, i) )²

k are pairs of blocks. As in RepDistiller, it is the mean over places of the squared difference (the paper's is its
length), with weight 1000 beside hard labels. Widths do not matter; the larger map is low-passed to the smaller one's
size before it is squared. Q has length one on every grid and the mean divides by its places, so a 4 x 4 grid has about
four times the pull of 8 x 8: a weight for full maps is to be multiplied by g² / (H W) where they are low-passed.

Approximate offline by default: with `signal: features` both maps are low-passed first, and as squares do not commute,
what is compared is the attention of low-passed maps, another objective. With `signal: extra` it is exact: the cache
holds the attention map of the teacher's full map, H W numbers (`signals: {extras: [attention-map/block3]}`), with
which no coarser student can be compared. It is exact, too, if the cached grid is as large as the map.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.extras import pair_extras
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import common_grid, on_one_grid, pair_maps
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes, extract
from pipeline.signals.extra import find_extra
from pipeline.signals.lowpass import lowpass

READS = ("features",)

EXTRA = "attention-map"


class Options(Section):
    """signal: what is read of the teacher. blocks: the teacher's, default all that are cached."""

    signal: Literal["features", "extra"] = "features"
    blocks: tuple[str, ...] | None = None


class AT(SampleObjective):
    """The loss of every pair of blocks, summed. pairs: the teacher's blocks, and the student's to learn from each."""

    def __init__(self, pairs: dict[str, str], signal: str, low_pass: str) -> None:
        super().__init__()
        find_extra(EXTRA)  # here, so that no step looks for it
        self.pairs, self.signal, self.low_pass = pairs, signal, low_pass
        kind = "features" if signal == "features" else f"extras/{EXTRA}"
        self.needs = Needs(
            teacher=frozenset(f"{kind}/{block}" for block in pairs),
            student=frozenset(f"features/{block}" for block in pairs.values()),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `attention`."""
        losses = []
        for theirs, own in self.pairs.items():
            maps = student.features[own]
            if self.signal == "features":
                s, t = on_one_grid(maps, teacher.features[theirs], self.low_pass)
                losses.append(squared_errors(extract(EXTRA, s), extract(EXTRA, t)))
            else:
                target = teacher.extras[f"{EXTRA}/{theirs}"]
                losses.append(squared_errors(extract(EXTRA, lowpass(maps, max(target.shape[1:]))), target))
        return {"attention": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps of one place, and full attention maps that are finer than the student's."""
    if options.signal == "features":
        found = pair_maps(student, teacher, options.blocks, key, cells=2)
        return AT({pair.teacher: pair.student for pair in found}, options.signal, teacher.filter)
    pairs, problems = {}, []
    for theirs, (own,) in pair_extras(EXTRA, student, teacher, options.blocks, key).items():
        pairs[theirs], size = own, student.features[own][1:]
        height, width = teacher.extras[f"{EXTRA}/{theirs}"]
        if common_grid(size, (height, width)) != (height, width) or height * width < 2:
            what = f"needs a student's map that can be reduced to the places of {EXTRA}/{theirs}, two or more"
            expected, got = (f"{height} x {width}", f"{size[0]} x {size[1]} at {own}")
            fix = f"leave {theirs} out of `blocks`, or set `signal: features`"
            problems.append(Problem(f"{key}.blocks", what, expected, got, fix))
    if problems:
        raise ConfigError(problems)
    return AT(pairs, options.signal, "mean")
