"""Reads which constants of an objective set vary, and over what; makes the configuration of each try."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

from pydantic import ValidationError

from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.experiment.source import ConfigFile
from pipeline.objectives import ObjectiveEntry, ObjectivesSection
from pipeline.sweeping.axes import VARY_HINT, Choices, Range, axis_of

Constants = dict[str, Any]
"""The constants of one try, by their keys, such as `kd.temperature`."""

NAMING = ("name", "label")
"""Options of every objective that change nothing of what it computes."""

LISTED_MOST = 200
"""Tries of whole numbers and listed values that are listed: of more, each that is drawn is looked at by itself."""


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
            elif (named := key.removesuffix(".")) in labels:
                what, fix = "names an objective and none of its options", f"name an option: {named}.weight={values}"
                problems.append(Problem(f"--vary {key}", what, got=text, fix=fix))
            elif label is None:
                problems.append(unknown_name(f"--vary {key}", key.partition(".")[0], labels))
            elif key in axes:
                problems.append(Problem(f"--vary {key}", "is given twice", fix="list all values in one"))
            elif over := next(
                (each for each in axes if f"{each}.".startswith(f"{key}.") or f"{key}.".startswith(f"{each}.")), None
            ):
                problems.append(Problem(f"--vary {key}", f"and {over} say the same option", fix="give one of them"))
            elif key.removeprefix(f"{label}.") in NAMING:
                what, fix = "says which objective it is, and is no constant of it", "vary another option"
                problems.append(Problem(f"--vary {key}", what, got=text, fix=fix))
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

    def first(self, source: ConfigFile, fixed: Constants | None = None) -> Constants:
        """Return the first constants that the objectives take, of listed values and ends of ranges.

        Args:
            source: the configuration.
            fixed: values that are given, by key; None for none.

        Returns the very first if all are refused, or if more than 200 would have to be tried.
        """
        tried = [[fixed[key]] if fixed and key in fixed else axis.tried() for key, axis in self.axes.items()]
        every = [dict(zip(self.axes, each, strict=True)) for each in islice(product(*tried), LISTED_MOST)]
        return next((each for each in every if not self.refused(source, each)), every[0])

    def _refuse_wrong(self, source: ConfigFile) -> None:
        """Raise ConfigError for values that an objective refuses, each with all that the others are tried with.

        Between the ends of a range of whole numbers some may be refused: those are not drawn.
        """
        first = self.first(source)
        problems: dict[str, Problem] = {}
        for key, axis in self.axes.items():
            found = [each for value in axis.tried() for each in self.refused(source, self.first(source, {key: value}))]
            if isinstance(axis, Range) and not axis.whole and not found:
                found = self.refused(source, {**first, key: axis.inner()})
                if found and not self.refused(source, {**first, key: round(axis.inner())}):
                    fix = f"add :int: --vary {key}={self.texts[key]}:int"
                    found = [replace(problem, fix=fix) for problem in found]
            problems |= {str(problem): problem for problem in found}
        if problems:
            raise ConfigError(list(problems.values()), source.file)


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
