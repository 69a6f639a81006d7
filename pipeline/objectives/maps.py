"""Provides what methods on maps share: both networks' maps on one grid, and connectors between their widths."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from pipeline.errors import ConfigError, Problem
from pipeline.models.cells import CellNorm as CellNorm
from pipeline.objectives.base import BlockPair, Needs, pair_blocks, pair_last_blocks
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.precision import precise
from pipeline.signals import SignalShapes
from pipeline.signals.lowpass import lowpass

EMBEDDING_HINT = "use `target: embedding`"
"""How to compare networks whose last maps do not fit."""

MapSize = tuple[int, int]


def on_one_grid(student: Tensor, teacher: Tensor, low_pass: str) -> tuple[Tensor, Tensor]:
    """Return the maps of both networks [B, C, h, w] on one grid, in at least float32.

    Args:
        low_pass: the filter of the cache.

    The student's map is low-passed to the teacher's grid; if it is the coarser one, the teacher's is low-passed to its
    grid.
    """
    s = lowpass(student, max(teacher.shape[2:]), low_pass)
    return s, lowpass(teacher, max(s.shape[2:]), low_pass)


def common_grid(student: MapSize, teacher: MapSize) -> MapSize | None:
    """Return the grid that `on_one_grid` reduces maps to.

    Args:
        student, teacher: their sizes. None if there is none.
    """

    def reduced(size: MapSize, grid: int) -> MapSize:
        return min(size[0], grid), min(size[1], grid)

    s = reduced(student, max(teacher))
    return s if reduced(teacher, max(s)) == s else None


def pair_maps(
    student: SignalShapes,
    teacher: SignalShapes,
    blocks: tuple[str, ...] | None,
    key: str,
    *,
    deepest: bool = False,
    cells: int = 1,
) -> list[BlockPair]:
    """Pair blocks as `pair_blocks` does, for maps that are compared place by place.

    Args:
        student, teacher, blocks, key: as there.
        deepest: if no blocks are named, the deepest pair alone.
        cells: the fewest that the method needs.

    Raises ConfigError at `key` for maps of other proportions, and for grids with fewer cells.
    """
    pairs = pair_blocks(student, teacher, blocks, key)
    if deepest and blocks is None:
        pairs = pairs[-1:]
    problems = []
    for pair in pairs:
        sizes = pair.student_shape[1:], pair.teacher_shape[1:]
        grid = common_grid(*sizes)
        if grid is None:
            got = " and ".join(f"{height} x {width}" for height, width in sizes)
            what = f"the maps of {pair.student} and the teacher's {pair.teacher} have other proportions"
            problems.append(Problem(f"{key}.blocks", what, got=got, fix=f"leave {pair.teacher} out"))
        elif grid[0] * grid[1] < cells:
            height, width = sizes[0]
            if height * width < cells:  # no finer grid of the teacher's helps
                which, fix = f"the student's {pair.student}", "name other `blocks`"
            else:
                which, fix = pair.teacher, "cache a finer `signals.features.grid`, or name other `blocks`"
            what = f"compares {cells} places of a map or more, and {which} has {grid[0]} x {grid[1]} here"
            problems.append(Problem(f"{key}.blocks", what, fix=fix))
    if problems:
        raise ConfigError(problems)
    return pairs


def needs_of(pairs: Iterable[BlockPair], *both: str) -> Needs:
    """Return the needs of a method: the maps of `pairs` of blocks, and other signals, read of `both` networks."""
    pairs = list(pairs)
    return Needs(
        teacher=frozenset({*both, *(f"features/{pair.teacher}" for pair in pairs)}),
        student=frozenset({*both, *(f"features/{pair.student}" for pair in pairs)}),
    )


def hierarchical_contexts(student: Tensor, teacher: Tensor, low_pass: str = "mean") -> Tensor:
    """Compute HCL: the weighted mean of squared errors of two maps, at the whole grid and at grids of 4, 2 and 1 below.

    Args:
        student, teacher: [B, C, H, W].
        low_pass: the filter that makes the coarser grids.

    Each grid weighs half as much as the one before. Returns a value of every sample, [B]. Chen, Liu, Zhao and Jia,
    "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044.
    """
    s, t = precise(student), precise(teacher)
    total, weights, weight = squared_errors(s, t), 1.0, 1.0
    for grid in (4, 2, 1):
        if grid < min(s.shape[2:]):
            weight /= 2
            weights += weight
            total = total + weight * squared_errors(lowpass(s, grid, low_pass), lowpass(t, grid, low_pass))
    return total / weights


class Connector(nn.Module):
    """Computes a 1 x 1 convolution and a batch normalisation: [B, C, h, w] to [B, width, h, w], in at least float32.

    Args:
        channels: C.

    Linear but for the statistics, so it commutes with every low-pass filter; one matrix product over all cells.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, width, bias=False)
        self.norm = CellNorm(width)

    def forward(self, maps: Tensor) -> Tensor:
        """Map `maps` [B, C, h, w] to [B, width, h, w]. The product has the student's precision: half under autocast."""
        batch, channels, height, width = maps.shape
        rows = precise(maps).permute(0, 2, 3, 1).reshape(-1, channels)
        connected: Tensor = self.norm(precise(self.linear(rows)))
        return connected.reshape(batch, height, width, -1).permute(0, 3, 1, 2)


def comparable_last_maps(student: SignalShapes, teacher: SignalShapes, key: str, behind_head: bool) -> BlockPair:
    """Pair the last maps of both networks, for a method that keeps what projects the student's to the teacher's.

    Args:
        student, teacher: shapes.
        key: of the objective, whose option `target` chooses between the map and the embedding.
        behind_head: whether the teacher's head reads the mean of the projected map.

    Raises ConfigError if the teacher's map is not cached, is of other proportions, or is not what its head reads.
    """
    pair, problems = pair_last_blocks(student, teacher, key), list[Problem]()
    if behind_head and not teacher.linear:
        what = "needs the teacher's head to read the mean of its last map, and it does not"
        problems.append(Problem(f"{key}.target", what, fix=EMBEDDING_HINT))
    if common_grid(pair.student_shape[1:], pair.teacher_shape[1:]) is None:
        what = f"the maps of {pair.student} and the teacher's {pair.teacher} have other proportions"
        problems.append(Problem(f"{key}.target", what, fix=EMBEDDING_HINT))
    if problems:
        raise ConfigError(problems)
    return pair
