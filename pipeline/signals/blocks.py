"""Names blocks by their numbers: `block1` is the shallowest."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline import plugins
from pipeline.signals.extra import EXTRAS, maps_read


def block_number(tap: str) -> int:
    """Return the number of a block, 3 of `block3`; 0 of a tap that is no block."""
    found = re.fullmatch(r"block(\d+)", tap)
    return int(found[1]) if found else 0


def deepest_block(taps: Iterable[str], extras: Iterable[str] = ()) -> int:
    """Return the deepest block's number among `taps` and the taps of extra signals; 0 without any.

    Args:
        extras: signals by name.
    """
    numbers = [block_number(tap) for tap in taps]
    for signal in extras:
        file, _, tap = signal.partition("/")
        beyond = maps_read(file) - 1 if file in plugins.names(EXTRAS) else 0  # of one's own, or of a later version
        numbers += [block_number(tap) + beyond] if block_number(tap) else []
    return max(numbers, default=0)
