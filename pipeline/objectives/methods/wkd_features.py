"""WKD-F: channels have the same mean and the same deviation over places as the teacher's, as if both were normal.

Lv, Yang and Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", NeurIPS 2024,
arXiv 2412.08139, the part on features, with Gaussians whose channels are independent. μ and σ are mean and deviation of
a channel c over the places of a cell k of g x g cells, σ = √(var + 10⁻⁵) with the variance of a sample, and F the
student's map, projected to the teacher's width and rectified:

    L = (1/B) Σ_b (1/g²) Σ_k Σ_c [ r (μ_s - μ_t)² + (σ_s - σ_t)² ]

The last map, with g = 1, r = 4 and weight 0.08 beside hard labels for CIFAR-100; g = 4, r = 2 and weight 0.02, there
with a bottleneck of 256 channels in the projection, for ImageNet (authors' code). The projection is a 1 x 1 convolution
and a batch normalisation. `rectify: false` leaves the rectification out: for teachers whose maps are negative, too. Of
several blocks the terms are summed. No label is read.

Approximate offline by default: with `signal: features` both maps are low-passed first, and what is compared are means
and deviations over cells of the cached grid. With `signal: extra` it is exact: the cache holds σ of the teacher's full
map (`signals: {extras: [channel-std/block3], features: {}}`), and the means are those of the cached maps. Where the
map's side is no multiple of the cached grid, cells of those are divided by area and do not overlap, in both networks
alike; with `means: extra` they are those of adaptive pooling, as in the authors' code (`extras: [channel-std/block3,
channel-mean/block3]`, and no features). It is exact, too, if the cached grid is as large as the map.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.extras import pair_extras
from pipeline.objectives.maps import Connector, common_grid, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import refuse_idle
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.signals.overlapping import fewest_places, level_place, overlapping_deviations, overlapping_means

READS = ("features",)

DEVIATIONS, MEANS = "channel-std", "channel-mean"
"""Extra signals."""


class Options(Section):
    """Holds the constants, and what is read of the teacher.

    Args:
        mean_weight: r. grid: g. rectify: whether the projected map is, as behind a ReLU.
        signal: low-passed maps, or the extra signal `channel-std`. means: with the latter, low-passed maps or
            `channel-mean`. blocks: the teacher's, default the deepest that is cached.
    """

    mean_weight: float = Field(4.0, ge=0)
    grid: Literal[1, 2, 4] = 1
    rectify: bool = True
    signal: Literal["features", "extra"] = "features"
    means: Literal["features", "extra"] = "features"
    blocks: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _read(self) -> Self:
        if self.signal == "features":
            refuse_idle(self, "signal 'features'", ["means"])
        return self


def moment_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """(1/g²) Σ over cells and channels of squared differences, of every sample [B]: [B, C, g²] of both networks."""
    return (precise(student) - precise(teacher)).square().sum(1).mean(1)


class WKDFeatures(SampleObjective):
    """The distance of means and of deviations, over pairs of blocks.

    pairs: the teacher's blocks, and the student's to learn from each. widths: of each pair, the channels of both.
    """

    def __init__(self, pairs: dict[str, str], widths: list[tuple[int, int]], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.options, self.low_pass = pairs, options, low_pass
        self.connectors = nn.ModuleList(Connector(*pair) for pair in widths)
        extras = options.signal == "extra"
        kinds = [f"extras/{DEVIATIONS}" if extras else "features"]
        kinds += [f"extras/{MEANS}" if options.means == "extra" else "features"]
        self.needs = Needs(
            teacher=frozenset(f"{kind}/{block}" for block in pairs for kind in kinds),
            student=frozenset(f"features/{block}" for block in pairs.values()),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `mean`, weighted, and `deviation`."""
        means, deviations = [], []
        for (theirs, own), connector in zip(self.pairs.items(), self.connectors, strict=True):
            maps = student.features[own]
            with torch.autocast(maps.device.type, enabled=False):
                maps = connector(maps)
                maps = maps.relu() if self.options.rectify else maps
                mean, deviation = self._distances(maps, theirs, teacher)
            means.append(mean)
            deviations.append(deviation)
        weighted = self.options.mean_weight * torch.stack(means).sum(0)
        return {"mean": weighted, "deviation": torch.stack(deviations).sum(0)}

    def _distances(self, maps: Tensor, theirs: str, teacher: Signals) -> tuple[Tensor, Tensor]:
        """Of means and of deviations, [B] each. maps: the student's, in the teacher's width."""
        grid, level = self.options.grid, level_place(self.options.grid)
        if self.options.signal == "features":
            s, t = on_one_grid(maps, teacher.features[theirs], self.low_pass)
            mean = moment_distances(overlapping_means(s, grid), overlapping_means(t, grid))
            return mean, moment_distances(overlapping_deviations(s, grid), overlapping_deviations(t, grid))
        kept = teacher.extras[f"{DEVIATIONS}/{theirs}"][:, :, level]
        deviation = moment_distances(overlapping_deviations(maps, grid), kept)
        if self.options.means == "extra":
            kept = teacher.extras[f"{MEANS}/{theirs}"][:, :, level]
            return moment_distances(overlapping_means(maps, grid), kept), deviation
        s, t = (lowpass(x, grid).flatten(2) for x in (maps, teacher.features[theirs]))
        return moment_distances(s, t), deviation


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses maps whose cells have one place, and means that the cached maps do not have."""
    pairs: dict[str, str] = {}
    widths, problems = list[tuple[int, int]](), list[Problem]()
    if options.signal == "features":
        for pair in pair_maps(student, teacher, options.blocks, key, deepest=True):
            pairs[pair.teacher] = pair.student
            widths.append((pair.student_shape[0], pair.teacher_shape[0]))
            size = common_grid(pair.student_shape[1:], pair.teacher_shape[1:]) or (0, 0)
            fix = "cache a finer `signals.features.grid`, name a smaller `grid`, or set `signal: extra`"
            problems += _too_small(f"{pair.teacher} on the grid that both have", size, options.grid, key, fix)
    else:
        found = list(_with_extras(student, teacher, options, key).items())
        for theirs, (own,) in found if options.blocks else found[-1:]:
            channels, numbers = teacher.extras[f"{DEVIATIONS}/{theirs}"]
            pairs[theirs] = own
            widths.append((student.features[own][0], channels))
            size = student.features[own][1:]
            problems += _too_small(f"the student's {own}", size, options.grid, key, "name a smaller `grid`")
            if numbers < level_place(options.grid).stop:
                what = f"{DEVIATIONS}/{theirs} has no cells of a grid of {options.grid}: the teacher's map is too small"
                problems.append(Problem(f"{key}.grid", what, fix="name a smaller `grid`"))
            if options.means == "features":
                problems += _no_means(theirs, teacher, options.grid, key)
    if problems:
        raise ConfigError(problems)
    return WKDFeatures(pairs, widths, options, teacher.filter)


def _with_extras(
    student: SignalShapes, teacher: SignalShapes, options: Options, key: str
) -> dict[str, tuple[str, ...]]:
    """`pair_extras` of deviations, and of means if they are read; says all that is missing at once."""
    found, problems = dict[str, tuple[str, ...]](), list[Problem]()
    for extra in (MEANS, DEVIATIONS) if options.means == "extra" else (DEVIATIONS,):
        try:
            found = pair_extras(extra, student, teacher, options.blocks, key)
        except ConfigError as error:
            problems += error.problems
    if problems and options.means == "features" and not teacher.features:
        for block in options.blocks or [f"block{teacher.depth or student.depth}"]:
            problems += _no_means(block, teacher, options.grid, key)
    if problems:
        raise ConfigError(problems)
    return found


def _too_small(which: str, size: tuple[int, int], grid: int, key: str, fix: str) -> list[Problem]:
    """The problem of a map with cells of one place, in which nothing deviates."""
    if min(size) and fewest_places(*size, grid) > 1:
        return []
    what = f"a deviation needs cells of several places, and {which} is too small for a grid of {grid}"
    expected = f"{grid + 1} x {grid + 1} or more"
    return [Problem(f"{key}.grid", what, expected, " x ".join(map(str, size)), fix)]


def _no_means(block: str, teacher: SignalShapes, grid: int, key: str) -> list[Problem]:
    """The problem of a cache from whose maps the means over cells do not follow."""
    other = f"or cache {MEANS}/{block}, too, and set `means: extra`"
    if block not in teacher.features:
        fix = f"add `features: {{}}` to `signals` and cache the teacher again, {other}"
        return [Problem(f"{key}.means", f"needs the teacher's means of {block}, and its map is not cached", fix=fix)]
    if teacher.filter != "mean":
        what = f"means do not follow from maps low-passed by {teacher.filter!r}"
        fix = f"set `signals.features.filter: mean` and cache the teacher again, {other}"
        return [Problem(f"{key}.means", what, fix=fix)]
    size = teacher.features[block][1:]
    if any(side % grid for side in size):
        what = f"means over {grid} x {grid} cells do not follow from the cached map of {block}"
        got = " x ".join(map(str, size))
        return [Problem(f"{key}.means", what, f"a grid that {grid} divides", got, f"name another `grid`, {other}")]
    return []
