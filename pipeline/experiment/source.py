"""Reads the sections that a stage declares from the file of a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from pipeline.config import Section, bind, in_order
from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.yaml_text import Raw, read_config

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
"""Every section there is in this order (a test holds it against `pipeline.experiment.config.ExperimentConfig`)."""

DEFAULT = Path("configs/digits.yaml")
"""The file that commands read where none is named: there is one in a clone of Decant."""

InputsT = TypeVar("InputsT", bound=Section)


@dataclass(frozen=True)
class ConfigFile:
    """Names a configuration file, and overrides of its values.

    Args:
        file: a YAML file.
        overrides: `section.key=value`, as given with `--set`.
        objective_sets: entries of the section `objectives` that replace those of the file, by name. A name may have
            dots, which an override would take for levels.
        contents: what the file said when `frozen` was called; None reads it whenever it is asked for.
    """

    file: Path
    overrides: Sequence[str] = ()
    objective_sets: Mapping[str, Any] = field(default_factory=dict, hash=False)  # a dict has none
    contents: Raw | None = field(default=None, hash=False)

    def frozen(self) -> ConfigFile:
        """Return the configuration as the file has it now: whoever edits that changes nothing of it."""
        return self if self.contents is not None else replace(self, contents=self._contents())

    def raw(self) -> Raw:
        """Read the sections as they were written; `runs.path` defaults to `artifacts/<name of the file>`."""
        raw = deepcopy(self.contents) if self.contents is not None else self._contents()
        if self.objective_sets:
            raw["objectives"] = {**raw["objectives"], **self.objective_sets}
        runs = raw.get("runs")
        if runs is None or (isinstance(runs, dict) and "path" not in runs):
            raw["runs"] = {"path": f"artifacts/{self.file.stem}", **(runs or {})}
        return raw

    def _contents(self) -> Raw:
        if self.file == DEFAULT and not self.file.exists():
            raise ConfigError([_nothing_here()])
        return read_config(self.file, self.overrides)

    def read(self, inputs: type[InputsT], raw: Raw | None = None) -> InputsT:
        """Read the sections that a stage declares.

        Args:
            inputs: a class whose fields are the sections.
            raw: the result of `raw()`, where that was called before; None calls it.

        Raises ConfigError with every problem.
        """
        return bind(raw if raw is not None else self.raw(), inputs, SECTIONS, self.file)

    def read_only(self, inputs: type[InputsT], names: Mapping[str, str]) -> InputsT:
        """Read the sections as `read` does, but keep one entry of some of them: no code of other entries is imported.

        Args:
            inputs: a class whose fields are the sections.
            names: of the entries to keep, by section.

        Raises ConfigError with every problem, and for names that do not exist.
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


def _nothing_here() -> Problem:
    """Say how to begin where no configuration is named and none is found."""
    here = sorted(path.as_posix() for folder in (Path(), Path("configs")) for path in folder.glob("*.yaml"))
    named = f"--config {next((each for each in here if each != 'dvc.yaml'), 'FILE')} names yours"
    begin = "`pipeline init FOLDER` writes one for your images; `pipeline demo` runs everything on small ones"
    return Problem("--config", f"no configuration is named, and there is no {DEFAULT}", fix=f"{named}; {begin}")


def _only(raw: Raw, section: str, name: str) -> list[Problem]:
    """Keep one entry of a section; return a problem, with the nearest known name, if there is no such entry."""
    entries: Any = raw.get(section)
    if not isinstance(entries, Mapping):
        return []  # reported by validation
    if name not in entries:
        return [unknown_name(f"{section}.{name}", name, [str(entry) for entry in entries])]
    raw[section] = {name: entries[name]}
    return []
