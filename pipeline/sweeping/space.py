"""Reads which constants of an objective set vary, and over what; makes the configuration of each try."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from pydantic import ValidationError

from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.experiment.source import ConfigFile
from pipeline.objectives import ObjectiveEntry, ObjectivesSection
from pipeline.yaml_text import parse_yaml

Constants = dict[str, Any]
"""The constants of one try, by their keys, such as `kd.temperature`."""

RANGE = re.compile(r"([^\s,.:]\S*?)\.\.([^\s,:]+?)((?::(?:log|int))*)")
"""`LOW..HIGH`, with `:log` or `:int` behind it, or both."""

LISTED_MOST = 200
"""Tries of whole numbers and listed values that are listed: of more, each that is drawn is looked at by itself."""

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


@dataclass(frozen=True)
class SearchSpace:
    """Holds what varies: for each key the values that it may have.

    Args:
        objectives: the objective set.
        axes: by key, `LABEL.OPTION`, with the label of an objective in the set.
        texts: as they were given, by key.
    """

    objectives: str
    axes: Mapping[str, Range | Choices]
    texts: Mapping[str, str]

    @classmethod
    def of(cls, given: Sequence[str], objectives: str, source: ConfigFile) -> SearchSpace:
        """Read `LABEL.OPTION=VALUES`, and try every value that is listed and the ends of every range.

        Args:
            given: the texts.
            objectives: the objective set.
            source: the configuration.

        Raises ConfigError with every problem: of the texts, of labels that the set does not have, and of values that
        the objectives refuse.
        """
        problems: list[Problem] = []
        axes: dict[str, Range | Choices] = {}
        texts: dict[str, str] = {}
        labels = list(_entries(source, objectives))
        for text in given:
            key, equals, values = text.partition("=")
            label = _label(key, labels)
            if not equals:
                problems.append(Problem("--vary", "is not LABEL.OPTION=VALUES", VARY_HINT, text))
            elif key in labels:
                what, fix = "names an objective and none of its options", f"name an option: {key}.weight={values}"
                problems.append(Problem(f"--vary {key}", what, got=text, fix=fix))
            elif label is None:
                problems.append(unknown_name(f"--vary {key}", key.partition(".")[0], labels))
            elif key in axes:
                problems.append(Problem(f"--vary {key}", "is given twice", fix="list all values in one"))
            else:
                try:
                    axes[key], texts[key] = axis_of(values, f"--vary {key}"), values
                except ConfigError as error:
                    problems += error.problems
        if not given:
            problems.append(Problem("--vary", "nothing varies, so there is nothing to choose", VARY_HINT))
        if problems:
            raise ConfigError(problems)
        space = cls(objectives, axes, texts)
        space._refuse_wrong(source)
        return space

    @property
    def listed(self) -> list[Constants] | None:
        """Return all tries that there are, in order, if every axis lists its values; else None."""
        values = [axis.values for axis in self.axes.values() if isinstance(axis, Choices)]
        if len(values) < len(self.axes):
            return None
        return [dict(zip(self.axes, each, strict=True)) for each in product(*values)]

    def few(self, source: ConfigFile, most: int) -> list[Constants] | None:
        """Return all tries that there are, without those that an objective refuses; None if there are more than `most`.

        Args:
            source: the configuration.
            most: tries, or 200 if that is more.

        None also where numbers that are not whole vary.
        """
        values = [axis.all_values() for axis in self.axes.values()]
        known = [each for each in values if each is not None]
        if len(known) < len(values) or math.prod(map(len, known)) > max(most, LISTED_MOST):
            return None
        every = (dict(zip(self.axes, each, strict=True)) for each in product(*known))
        return [each for each in every if not self.refused(source, each)]

    def refused(self, source: ConfigFile, values: Constants) -> list[Problem]:
        """Return why the objectives refuse some constants; nothing if they take them.

        Args:
            source: the configuration.
            values: by key.
        """
        try:
            self.with_values(source, values).read_only(ObjectivesSection, {"objectives": self.objectives})
        except ConfigError as error:
            return list(error.problems)
        return []

    def configured(self, source: ConfigFile) -> Constants:
        """Return the constants as the configuration has them, defaults included; they may lie outside the space.

        Args:
            source: the configuration.
        """
        entries = _entries(source, self.objectives)
        found: Constants = {}
        for key in self.axes:
            entry, names = _place(entries, key)
            value: Any = ObjectiveEntry.model_validate(entry).model_dump()
            for part in names:
                value = value.get(part) if isinstance(value, dict) else None
            found[key] = value
        return found

    def with_values(self, source: ConfigFile, values: Constants) -> ConfigFile:
        """Return the configuration of a try: with these constants in the objective set.

        Args:
            source: the configuration.
            values: by key.
        """
        raw = source.raw()["objectives"][self.objectives]
        entries = _entries(source, self.objectives)
        for key, value in values.items():
            place, (*parts, last) = _place(entries, key)
            for part in parts:
                inner = place.get(part)
                place[part] = dict(inner) if isinstance(inner, Mapping) else {}
                place = place[part]
            place[last] = value
        listed = list(entries.values())
        changed = listed if isinstance(raw, list) else {**raw, "objectives": listed}
        return replace(source, objective_sets={**source.objective_sets, self.objectives: changed})

    def _refuse_wrong(self, source: ConfigFile) -> None:
        """Raise ConfigError for values that an objective refuses: each is tried with the first ones of the others.

        Between the ends of a range of whole numbers some may be refused: those are not drawn.
        """
        first = {key: axis.tried()[0] for key, axis in self.axes.items()}
        problems: dict[str, Problem] = {}
        for key, axis in self.axes.items():
            found = [each for value in axis.tried() for each in self.refused(source, {**first, key: value})]
            if isinstance(axis, Range) and not axis.whole and not found:
                found = self.refused(source, {**first, key: axis.inner()})
                if found and not self.refused(source, {**first, key: round(axis.inner())}):
                    fix = f"add :int: --vary {key}={self.texts[key]}:int"
                    found = [replace(problem, fix=fix) for problem in found]
            problems |= {str(problem): problem for problem in found}
        if problems:
            raise ConfigError(list(problems.values()), source.file)


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
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError([Problem(key, "a range ends above its beginning", VARY_HINT, text)])
        if log and low <= 0:
            raise ConfigError([Problem(key, "a logarithmic range begins above 0", VARY_HINT, text)])
        if whole and not (low.is_integer() and high.is_integer()):
            raise ConfigError([Problem(key, "the ends of a range of whole numbers are whole", VARY_HINT, text)])
        return Range(low, high, log, whole)
    values = parse_yaml(f"[{text}]", key)
    if not values or not text.strip():
        raise ConfigError([Problem(key, "lists no values", VARY_HINT, text)])
    distinct = [value for place, value in enumerate(values) if value not in values[:place]]
    return Choices(tuple(distinct))


def _entries(source: ConfigFile, objectives: str) -> dict[str, dict[str, Any]]:
    """Return the entries of an objective set by their labels, as mappings. Raises ConfigError if they are wrong."""
    source.read_only(ObjectivesSection, {"objectives": objectives})  # every problem, with its key
    raw: Any = source.raw()["objectives"][objectives]
    listed = raw if isinstance(raw, list) else raw["objectives"]
    entries = [{"name": entry} if isinstance(entry, str) else dict(entry) for entry in listed]
    try:
        labels = [ObjectiveEntry.model_validate(entry).label for entry in entries]
    except ValidationError:  # pragma: no cover - read above
        labels = []
    return dict(zip(labels, entries, strict=True))


def _label(key: str, labels: Iterable[str]) -> str | None:
    """Return the label that a key begins with, the longest of several; None if there is none."""
    return max((each for each in labels if re.match(re.escape(each) + r"\..", key)), key=len, default=None)


def _place(entries: dict[str, dict[str, Any]], key: str) -> tuple[dict[str, Any], list[str]]:
    """Return the entry of a key, which has one, and the names that lead to its value."""
    label = _label(key, entries)
    assert label is not None  # `SearchSpace.of` refuses others
    return entries[label], key.removeprefix(f"{label}.").split(".")
