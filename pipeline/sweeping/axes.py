"""Reads what a constant of a sweep varies over: values that are listed, or a range."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError, Problem
from pipeline.yaml_text import parse_yaml

RANGE = re.compile(r"([^\s,:]+?)\.\.([^\s,:]+?)((?::(?:log|int))*)")
"""`LOW..HIGH`, with `:log` or `:int` behind it, or both."""

MOST_WHOLE = 2**53
"""Beyond it floating-point numbers leave some out."""

VARY_HINT = "such as kd.temperature=1,2,4,8 or kd.weight=0.1..10:log"


@dataclass(frozen=True)
class Range:
    """Holds an interval that values are drawn from.

    Args:
        low, high: its ends, which belong to it.
        log: whether equal factors are equally likely; else equal differences.
        whole: whether values are whole numbers.
    """

    low: float
    high: float
    log: bool = False
    whole: bool = False

    def tried(self) -> list[Any]:
        """Return values that all others lie between."""
        return [int(self.low), int(self.high)] if self.whole else [self.low, self.high]

    def inner(self) -> float:
        """Return a value between the ends that is no whole number: those may be whole where others are not."""
        value = self.low + 0.37 * (self.high - self.low)
        return value + min(0.5, (self.high - value) / 2) if value.is_integer() else value

    def all_values(self) -> range | None:
        """Return all values, if they are whole numbers; else None."""
        return range(int(self.low), int(self.high) + 1) if self.whole else None

    def holds(self, value: object) -> bool:
        """Tell whether a value may be drawn."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and (not self.whole or float(value).is_integer())

    def at(self, share: float) -> float | int:
        """Return the value at a share of the interval, from 0 to 1."""
        if self.whole and not self.log:
            return min(int(self.low) + int(share * (self.high - self.low + 1)), int(self.high))
        if self.log:
            value = math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
        else:
            value = self.low + share * (self.high - self.low)
        return self.written(value)

    def written(self, value: float) -> float | int:
        """Return a value that people can copy: of four digits, within the interval."""
        near = min(max(float(f"{value:.4g}"), self.low), self.high)
        return round(value) if self.whole else near


@dataclass(frozen=True)
class Choices:
    """Holds values that are listed, any that YAML can write."""

    values: tuple[Any, ...]

    def tried(self) -> list[Any]:
        """Return all of them."""
        return list(self.values)

    def all_values(self) -> Sequence[Any]:
        """Return all of them."""
        return self.values

    def holds(self, value: object) -> bool:
        """Tell whether a value is one of them."""
        return value in self.values


def axis_of(text: str, key: str) -> Range | Choices:
    """Read the values of a key: `1,2,4`, or `0.1..10`, `0.1..10:log`, `1..8:int`.

    Args:
        text: the values.
        key: that problems name.

    Raises ConfigError.
    """
    if (found := RANGE.fullmatch(text.strip())) is not None:
        try:
            low, high = (float(part) for part in found.groups()[:2])
        except ValueError:
            raise ConfigError([Problem(key, "the ends of a range are no numbers", VARY_HINT, text)]) from None
        log, whole = ":log" in found[3], ":int" in found[3]
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ConfigError([Problem(key, "the ends of a range are finite", VARY_HINT, text)])
        if not low < high:
            raise ConfigError([Problem(key, "a range ends above its beginning", VARY_HINT, text)])
        if whole and max(-low, high) > MOST_WHOLE:
            raise ConfigError([Problem(key, "whole numbers end at 2**53", VARY_HINT, text)])
        if log and low <= 0:
            raise ConfigError([Problem(key, "a logarithmic range begins above 0", VARY_HINT, text)])
        if whole and not (low.is_integer() and high.is_integer()):
            raise ConfigError([Problem(key, "the ends of a range of whole numbers are whole", VARY_HINT, text)])
        return Range(low, high, log, whole)
    if re.search(r"[\w\s]\.\.[\w\s.]", text):
        raise ConfigError([Problem(key, "is not a range, LOW..HIGH with :log or :int behind it", VARY_HINT, text)])
    values = parse_yaml(f"[{text}]", key)
    if not values or not text.strip():
        raise ConfigError([Problem(key, "lists no values", VARY_HINT, text)])
    distinct = [value for place, value in enumerate(values) if value not in values[:place]]
    return Choices(tuple(distinct))
