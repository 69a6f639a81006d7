"""How a stage reads the sections that it declares, and where runs put what they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, field_validator

from pipeline import plugins
from pipeline.config import LocalPath, Raw, Section, bind, in_order, read_config
from pipeline.errors import ConfigError, Problem

SECTIONS = (
    "data",
    "teacher",
    "teacher_training",
    "views",
    "signals",
    "store",
    "caches",
    "students",
    "objectives",
    "train",
    "evaluate",
    "runs",
)
"""Every section there is (a test holds it against `pipeline.experiment.config.Experiment`)."""

InputsT = TypeVar("InputsT", bound=Section)


class RunsConfig(Section):
    """Where students, their evaluation and the report go, and the seeds that each student is trained with."""

    path: LocalPath
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field((0,), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("names every seed once")
        return seeds

    def student(self, student: str, objectives: str, seed: int | str) -> Path:
        """The folder of one student."""
        return self.path / "students" / student / objectives / f"seed-{seed}"

    def folders(self, students: Collection[str], objectives: Collection[str]) -> list[Path]:
        """The folders of every student with every objective set and seed."""
        pairs = [(student, name) for student in students for name in objectives]
        return [self.student(student, name, seed) for student, name in pairs for seed in self.seeds]

    @property
    def evaluation(self) -> Path:
        """The file that `evaluate` writes."""
        return self.path / "evaluation.json"

    @property
    def metrics(self) -> Path:
        """The file that `evaluate` writes for DVC's tables: top-1 accuracy alone."""
        return self.path / "metrics.json"

    @property
    def report(self) -> Path:
        """The folder that `report` writes."""
        return self.path / "report"


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file and the overrides given with `--set`."""

    file: Path
    overrides: Sequence[str] = ()

    def raw(self) -> Raw:
        """The sections as they were written; `runs.path` defaults to `artifacts/<name of the file>`."""
        raw = read_config(self.file, self.overrides)
        runs = raw.get("runs")
        if runs is None or (isinstance(runs, dict) and "path" not in runs):
            raw["runs"] = {"path": f"artifacts/{self.file.stem}", **(runs or {})}
        return raw

    def read(self, inputs: type[InputsT], raw: Raw | None = None) -> InputsT:
        """The sections that a stage declares. Raises ConfigError with every problem."""
        return bind(raw if raw is not None else self.raw(), inputs, SECTIONS, self.file)

    def read_only(self, inputs: type[InputsT], names: Mapping[str, str]) -> InputsT:
        """As `read`, with one entry of some sections of named things: the others are neither imported nor depended on.

        names: of the entries, by section. Raises ConfigError with every problem, names that there are not among them.
        """
        raw = self.raw()
        problems = [problem for section, name in names.items() for problem in _only(raw, section, name)]
        try:
            result = self.read(inputs, raw)
        except ConfigError as error:
            problems += error.problems
        if problems:
            raise ConfigError(in_order(problems, raw), self.file)
        return result


def _only(raw: Raw, section: str, name: str) -> list[Problem]:
    """Keep one entry of a section; a problem, with the nearest known name, if there is no such entry."""
    entries: Any = raw.get(section)
    if not isinstance(entries, Mapping):
        return []  # reported by validation
    if name not in entries:
        return [plugins.unknown(f"{section}.{name}", name, [str(entry) for entry in entries])]
    raw[section] = {name: entries[name]}
    return []
