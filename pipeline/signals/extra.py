"""Computes extra signals: functions of full maps that low-passed maps cannot give."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from types import ModuleType
from typing import TYPE_CHECKING

from pipeline import plugins
from pipeline.errors import ConfigError, during, unknown_name

if TYPE_CHECKING:  # torch takes seconds, and a configuration names extra signals
    from torch import Tensor

EXTRAS = "pipeline.signals.extras"
"""The package whose files are the extra signals."""

EXTRAS_KEY = "signals.extras"

_FOUND: dict[str, ModuleType] = {}
"""Extra signals that were found, as filters are kept in `lowpass.py`."""


def find_extra(name: str, key: str = EXTRAS_KEY) -> ModuleType:
    """Find the extra signal in the file `name`; what was found once is not looked for again.

    Raises ConfigError at `key` for an unknown name.
    """
    module = _FOUND.get(name)
    if module is None:
        module = _FOUND[name] = plugins.load(EXTRAS, name, key)
    return module


def extract(signal: str, *maps: Tensor) -> Tensor:
    """Compute an extra signal, "<file>/<tap>" or its file alone, of full maps [B, C, H, W], shallow to deep: [B, ...].

    Of the teacher before caching and of the student in training alike. Computed and returned in at least float32,
    whatever autocast says. Differentiable. Raises ConfigError for an unknown name.
    """
    import torch

    module = find_extra(signal.partition("/")[0])
    device = maps[0].device.type
    autocast = torch.amp.is_autocast_available(device)
    with torch.autocast(device, enabled=False) if autocast else nullcontext(), during(lambda: f"extra signal {signal}"):
        result: Tensor = module.extract(*(x.to(torch.promote_types(x.dtype, torch.float32)) for x in maps))
    return result


def maps_read(name: str, key: str = EXTRAS_KEY) -> int:
    """Return how many maps the extra signal in the file `name` is computed from. Raises ConfigError at `key`."""
    return int(find_extra(name, key).MAPS)


def taps_read(signal: str, taps: Sequence[str], key: str = EXTRAS_KEY) -> tuple[str, ...]:
    """Return those of a network's `taps` (shallow to deep) that the extra `signal` "<file>/<tap>" is computed from.

    Raises ConfigError at `key` for unknown names, and if there are too few blocks beyond the tap.
    """
    name, _, tap = signal.partition("/")
    count = maps_read(name, key)
    maps = [each for each in taps if each.startswith("block") or (count == 1 and each == "final")]
    possible = maps[: len(maps) + 1 - count]
    if tap not in possible:
        raise ConfigError([unknown_name(key, signal, [f"{name}/{each}" for each in possible])])
    return tuple(maps[maps.index(tap) :][:count])
