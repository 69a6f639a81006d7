"""Holds which signals of the teacher the students need, and the section `signals` that keeps those alone."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import wrap
from typing import Any

from pipeline.config import resolved
from pipeline.errors import ConfigError, Problem
from pipeline.signals import SignalsConfig

SignalsRead = Mapping[tuple[str, str], frozenset[str]]
"""The teacher's signals that are read, by student and objective set."""

NamedRead = Mapping[tuple[str, str], Mapping[str, frozenset[str]]]
"""The signals that are read of teachers that objectives name: by student and objective set, and by teacher."""


@dataclass(frozen=True)
class Requirements:
    """Holds what students need of the teacher, with every objective set.

    Args:
        needs: the signals that each of them reads.
        section: the least of `signals` that serves them all.
        missing, superfluous: what it keeps beyond the section of the configuration, and what it leaves out of that, in
            bytes per view.
        fresh: the objective sets whose views are drawn anew in every epoch: they need no cache at all.
        named: the signals that are read of each teacher that objectives name, by student and objective set.
    """

    needs: SignalsRead
    section: SignalsConfig
    missing: dict[str, int]
    superfluous: dict[str, int]
    fresh: frozenset[str]
    named: NamedRead = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        needs: SignalsRead,
        section: SignalsConfig,
        fresh: frozenset[str],
        named: NamedRead,
        *,
        kept: Mapping[str, int],
        wanted: Mapping[str, int],
    ) -> Requirements:
        """Compare the section that the students need with that of the configuration.

        Args:
            needs, section, fresh, named: as the attributes.
            kept, wanted: bytes per view, by signal, with the section of the configuration and with `section`.
        """
        missing = {signal: size for signal, size in wanted.items() if signal not in kept}
        superfluous = {signal: size for signal, size in kept.items() if signal not in wanted}
        return cls(needs, section, missing, superfluous, fresh, named)

    def readers(self, signal: str) -> str:
        """Return the objective sets that read `signal`, for people; with the students, if not all of them read it."""
        return ", ".join(_names(self.needs, [pair for pair, read in self.needs.items() if signal in read]))

    def facts(self) -> dict[str, Any]:
        """Return the requirements as plain values, for programs."""
        return {
            "needs": [
                {
                    "student": student,
                    "objectives": objectives,
                    "views": "fresh" if objectives in self.fresh else "cached",
                    "signals": sorted(read),
                    **({"teachers": _sorted(self.named[pair])} if self.named.get(pair) else {}),
                }
                for pair, read in self.needs.items()
                for student, objectives in [pair]
            ],
            "signals": _plain(self.section),
            "missing": self.missing,
            "superfluous": self.superfluous,
        }

    def section_text(self) -> str:
        """Return the section as YAML, to be put into a configuration as it is."""
        return "\n".join(["signals:", *(f"  {key}: {_flow(value)}" for key, value in _plain(self.section).items())])

    def lines(self) -> Iterator[str]:
        """Yield lines for people: who needs what, then what nobody needs, and the section without it."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for pair, read in sorted(self.needs.items(), key=lambda item: sorted(item[1])):
            nothing = "nothing (fresh views)" if pair[1] in self.fresh else "nothing"
            groups.setdefault(", ".join(sorted(read)) or nothing, []).append(pair)
        for pair, teachers in self.named.items():
            for teacher, read in teachers.items():
                groups.setdefault(f"of {teacher}, {', '.join(sorted(read)) or 'nothing'}", []).append(pair)
        head = "needs"
        for signals, pairs in groups.items():
            text = f"{signals}: {', '.join(_names(self.needs, pairs))}"
            yield from wrap(text, 110, initial_indent=f"{head:<10}", subsequent_indent=" " * 12, break_on_hyphens=False)
            head = ""
        for signal, size in self.superfluous.items():
            yield f"unneeded  {signal}: {size:,} bytes per view"
        if self.superfluous:
            yield "          this is enough, if it is in the configuration before the cache is made:"
            yield self.section_text()


class MissingSignalsError(ConfigError):
    """Reports that students cannot learn from the configured signals, and could from others.

    Args:
        problems: all that is wrong with the configuration besides.
        source: its file.
        requirements: what the students need.
    """

    def __init__(self, problems: Sequence[Problem], source: object, requirements: Requirements) -> None:
        self.requirements = requirements
        lines = (f"  {signal}: {requirements.readers(signal)}" for signal in requirements.missing)
        what = "\n".join(["lacks what objective sets read of the teacher", *lines])
        fix = f"replace it by this, and run `pipeline cache-teacher` again\n{requirements.section_text()}"
        super().__init__([*problems, Problem("signals", what, fix=fix)], source)

    def __reduce__(self) -> tuple[type[ConfigError], tuple[Sequence[Problem], object]]:
        return ConfigError, (self.problems, self._source)


def _names(needs: SignalsRead, pairs: Collection[tuple[str, str]]) -> list[str]:
    students: dict[str, list[str]] = {}
    for student, objectives in pairs:
        students.setdefault(objectives, []).append(student)
    every = {name: sum(objectives == name for _, objectives in needs) for name in students}
    return [name if len(who) == every[name] else f"{name} ({', '.join(who)})" for name, who in students.items()]


def _sorted(teachers: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    return {name: sorted(read) for name, read in teachers.items()}


def _plain(section: SignalsConfig) -> dict[str, Any]:
    """Return the section as plain values, short where defaults are the same."""
    said = resolved(section)
    said["extras"] = [e["name"] if e["encoding"] == "float16" else e for e in said["extras"]]
    return {key: value for key, value in said.items() if value or key in ("logits", "embedding")}


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return value if isinstance(value, str) else json.dumps(value)
