"""Computes local logits: those of every cell of a network's last map, on one grid or several.

Where a network ends in a mean over its last map and a linear head, the head of a cell's mean is that cell's logits, and
coarser cells are exact means of finer ones. So the teacher's low-passed last map and its head are all that methods on
local logits need (SDD, arXiv 2403.13512, equation 6; `docs/concepts.md`). That map is the deepest block's or, where
something lies behind it (the norm of a Swin, the convolution of an EfficientNet), `final`. A student may also have a
norm between mean and head (a ViT, a ConvNeXt): its logits of a cell are what its own end makes of the cell's mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import NO_HEAD_HINT, BlockPair, pair_last_blocks
from pipeline.objectives.requirements import deepest_map, require_same_classes
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass


def local_logits(signals: Signals, tap: str, scales: Sequence[int]) -> list[Tensor]:
    """Compute, for each scale r, the logits of the r x r cells of a map, row by row: [B, r², K] each.

    Args:
        signals: of a network, its last map and head among them.
        tap: as `last_maps` names it.

    Cells are means; `scales` divide the largest of them, so that each is pooled from that one.
    """
    finest = lowpass(signals.features[tap], max(scales))
    cells = [lowpass(finest, scale).flatten(2).transpose(1, 2) for scale in scales]
    if reads_head(signals, tap):
        assert signals.head is not None
        return [signals.head(each) for each in cells]
    assert signals.local is not None
    every = torch.cat(cells, dim=1)
    logits = signals.local(every.flatten(0, 1)).reshape(*every.shape[:2], -1)
    return list(torch.split(logits, [each.shape[1] for each in cells], dim=1))


def refuse_repeated_grids(scales: tuple[int, ...]) -> tuple[int, ...]:
    """Return `scales` for options. Raises ValueError unless they are different grids of 1 or more."""
    if min(scales, default=0) < 1 or len(set(scales)) != len(scales):
        raise ValueError("different grids of 1 or more")
    return scales


def reads_head(signals: Signals, tap: str) -> bool:
    """Tell whether the logits of a place are the head of its vector, for the map at `tap` of `signals`."""
    return tap != "final" or (signals.head is not None and signals.head.linear_final)


def last_maps(
    student: SignalShapes, teacher: SignalShapes, scales: Sequence[int], key: str, option: str = "scales"
) -> BlockPair:
    """Choose the maps of both networks that local logits are read from: the deepest blocks, or `final`.

    Raises ConfigError with every reason why they cannot be had at these scales: a teacher's head that is not linear on
    the mean of the last map, a student that does not pool by a mean, maps that are too coarse, scales that do not
    divide each other, another filter than `mean`, different classes.

    Args:
        key: the dotted key that errors name.
        option: the name of the scales there.
    """
    require_same_classes(student, teacher, key)
    pair = _last_pair(student, teacher, key)
    if not student.linear and student.local and "final" in student.features:
        pair = replace(pair, student="final", student_shape=student.features["final"])
    fix = "use an objective on embeddings or features for this pair"
    problems = []
    if teacher.linear is None:
        problems.append(Problem(key, "needs the teacher's head for local logits", fix=NO_HEAD_HINT))
    elif not teacher.linear and not teacher.linear_final:
        what = "needs local logits, and the teacher's head is not linear on the mean of its last map"
        problems.append(Problem(key, what, fix=fix))
    if not student.linear and pair.student != "final":
        what = "needs local logits, and the student's are no function of the mean of a map (a class token?)"
        problems.append(Problem(key, what, fix=fix))
    if problems:
        raise ConfigError(problems)
    finest = max(scales)
    if indivisible := [scale for scale in scales if finest % scale]:
        what = f"every scale must divide the finest one, {finest}, for its cells to be unions of finer cells"
        problems.append(Problem(f"{key}.{option}", what, got=str(indivisible)))
    if teacher.filter != "mean":
        what = f"needs means over cells, and the features were low-passed by {teacher.filter!r}"
        problems.append(Problem(key, what, fix="set `signals.features.filter: mean` and cache the teacher again"))
    for who, shape in (("student", pair.student_shape), ("teacher", pair.teacher_shape)):
        if min(shape[1:]) < finest:
            what = f"the {who}'s last map has {shape[1]} x {shape[2]} cells, too few for a scale of {finest}"
            problems.append(Problem(f"{key}.{option}", what, fix=f"use {option} up to {min(shape[1:])}"))
    height, width = pair.teacher_shape[1:]
    if height >= finest and (height % finest or width % finest):
        what = f"the cached grid of {height} x {width} is not a multiple of the finest scale, {finest}"
        problems.append(Problem(f"{key}.{option}", what, fix="cells of that scale are no unions of cached cells"))
    if problems:
        raise ConfigError(problems)
    return pair


def _last_pair(student: SignalShapes, teacher: SignalShapes, key: str) -> BlockPair:
    """The student's deepest block, and the teacher's map that its head reads."""
    if teacher.linear or not teacher.linear_final:
        return pair_last_blocks(student, teacher, key)
    if "final" not in teacher.features:
        what = "needs the teacher's last map, which for this teacher is 'final', and the cache does not hold it"
        fix = "add `final` to `signals.features.blocks` and cache the teacher again"
        raise ConfigError([Problem(key, what, fix=fix)])
    block, shape = deepest_map(student, key)
    return BlockPair(block, "final", shape, teacher.features["final"])
