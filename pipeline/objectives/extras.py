"""Pairs blocks by the extra signals that the cache holds of the teacher's."""

from __future__ import annotations

from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import partners
from pipeline.signals import SignalShapes, block_number, maps_read


def pair_extras(
    extra: str, student: SignalShapes, teacher: SignalShapes, blocks: tuple[str, ...] | None, key: str
) -> dict[str, tuple[str, ...]]:
    """Return the student's blocks to compute an extra signal from, for every block of the teacher that has it cached.

    Args:
        extra: its file.
        blocks: the teacher's, None for all.

    Blocks are paired as maps are. Raises ConfigError at `key`, with the line to add, if there are none.
    """
    held = [tap for name, _, tap in (signal.partition("/") for signal in teacher.extras) if name == extra]
    reads = {
        tap: [f"block{block_number(tap) + i}" for i in range(maps_read(extra))] for tap in held if block_number(tap)
    }
    wanted = blocks or sorted(reads, key=block_number) or [_example(student, teacher, maps_read(extra))]
    if missing := [block for block in wanted if block not in reads]:
        names = ", ".join(f"{extra}/{block}" for block in missing)
        what = f"needs the teacher's extra signal {names}, which the cache does not hold"
        fix = f"add `extras: [{names}]` to `signals` and cache the teacher again, or set `signal: features`"
        raise ConfigError([Problem(key, what, got=", ".join(sorted(teacher.extras)) or "no extra signals", fix=fix)])
    own = partners(student, teacher, {block for blocks_read in reads.values() for block in blocks_read})
    found = {tap: tuple(own[block] for block in reads[tap]) for tap in wanted if own.keys() >= set(reads[tap])}
    if missing := [block for block in wanted if block not in found and (blocks or not found)]:
        what = f"the student has too few blocks for {extra}/{missing[0]}"
        raise ConfigError([Problem(f"{key}.blocks", what, fix="name deeper blocks, or set `signal: features`")])
    return found


def _example(student: SignalShapes, teacher: SignalShapes, maps: int) -> str:
    """The deepest block at which the teacher could have an extra signal of `maps` maps, as far as one knows."""
    return f"block{max(1, (teacher.depth or student.depth) + 1 - maps)}"
