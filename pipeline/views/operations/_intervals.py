"""Reads intervals of a configuration that one number may stand for, as in torchvision."""

from __future__ import annotations

from pydantic_core import PydanticCustomError

Interval = tuple[float, float]


def interval_around(value: object, center: float, low: float, high: float) -> Interval:
    """Read [least, largest], or a number s for [center - s, center + s], of which nothing is below `low`.

    For use in pydantic's validators: raises PydanticCustomError if it is neither, or leaves [low, high].

    Args:
        value: of the option.
        center: what the interval lies around.
        low, high: what it must not leave.
    """
    given = list(value) if isinstance(value, list | tuple) else [value]
    parts = [float(part) for part in given if isinstance(part, int | float) and not isinstance(part, bool)]
    if len(parts) == len(given) == 1 and parts[0] >= 0:
        parts = [max(low, center - parts[0]), center + parts[0]]
    if len(parts) != 2 or len(given) > 2 or not low <= parts[0] <= parts[1] <= high:
        says = f"is neither a number from 0 on nor an interval [least, largest] within {low:g} and {high:g}"
        raise PydanticCustomError("interval", "{says}", {"says": says})
    return parts[0], parts[1]
