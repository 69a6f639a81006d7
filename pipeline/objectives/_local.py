"""Local logits: what a network says of every cell of its last map, on one grid or several.

Where a network ends in a mean over its last map and a linear head, the head of a cell's mean is that cell's logits, and
coarser cells are exact means of finer ones. So the teacher's low-passed last map and its head are all that methods on
local logits need (SDD, arXiv 2403.13512, equation 6; `docs/concepts.md`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.errors import ConfigError, Problem
from pipeline.objectives._base import BlockPair, pair_blocks
from pipeline.objectives._requirements import same_classes
from pipeline.signals import Signals, SignalShapes, lowpass


def local_logits(signals: Signals, block: str, scales: Sequence[int]) -> list[Tensor]:
    """For each scale r the logits of the r x r cells of a block's map, row by row: [B, r², K] each.

    Cells are means; `scales` divide the largest of them, so that each is pooled from that one. Raises AttributeError
    without a head: ask `last_maps` first.
    """
    assert signals.head is not None
    finest = lowpass(signals.features[block], max(scales))
    cells = [lowpass(finest, scale).flatten(2).transpose(1, 2) for scale in scales]
    return [signals.head(each) for each in cells]


def last_maps(student: SignalShapes, teacher: SignalShapes, scales: Sequence[int], key: str) -> BlockPair:
    """The deepest blocks of both networks, if local logits can be had of them at these scales.

    Raises ConfigError with every reason why they cannot: a head that is not linear on the mean of the last map, maps
    that are too coarse, scales that do not divide each other, another filter than `mean`, different classes.
    """
    same_classes(student, teacher, key)
    pair = pair_blocks(student, teacher, None, key)[-1]
    problems = [
        Problem(
            key,
            f"needs local logits, and the {who}'s head is not linear on the mean of its last map",
            fix="use an objective on embeddings or features for this pair",
        )
        for who, shapes in (("student", student), ("teacher", teacher))
        if not shapes.linear
    ]
    if problems:
        raise ConfigError(problems)
    finest = max(scales)
    if indivisible := [scale for scale in scales if finest % scale]:
        what = f"every scale must divide the finest one, {finest}, for its cells to be unions of finer cells"
        problems.append(Problem(f"{key}.scales", what, got=str(indivisible)))
    if teacher.filter != "mean":
        what = f"needs means over cells, and the features were low-passed by {teacher.filter!r}"
        problems.append(Problem(key, what, fix="set `signals.features.filter: mean` and cache the teacher again"))
    for who, shape in (("student", pair.student_shape), ("teacher", pair.teacher_shape)):
        if min(shape[1:]) < finest:
            what = f"the {who}'s last map has {shape[1]} x {shape[2]} cells, too few for a scale of {finest}"
            problems.append(Problem(f"{key}.scales", what, fix=f"use scales up to {min(shape[1:])}"))
    height, width = pair.teacher_shape[1:]
    if height >= finest and (height % finest or width % finest):
        what = f"the cached grid of {height} x {width} is not a multiple of the finest scale, {finest}"
        problems.append(Problem(f"{key}.scales", what, fix="cells of that scale are no unions of cached cells"))
    if problems:
        raise ConfigError(problems)
    return pair
