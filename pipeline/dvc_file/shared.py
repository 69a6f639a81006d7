"""Finds what several experiments share: of two dvc.yaml files, only one makes a data set, a teacher or a cache.

DVC refuses two stages with one output, and connects stages of different files by what they write and read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.config import resolved
from pipeline.dvc_file.stage import Stage
from pipeline.dvc_file.stages import SELECTING, stages_of
from pipeline.dvc_file.tree import Output, outputs_elsewhere, plain
from pipeline.errors import ConfigError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.yaml_text import Raw

WITHOUT_EFFECT = {"teacher.device"}
"""Keys that change how something is made, never the result."""

PLACES = {
    "prepare-data": "data.path",
    "train-teacher": "teacher.weights",
    "cache-teacher": "store.path",
    "cache-evaluation": "store.path",
}
"""The stages whose outputs experiments may share, and the keys that name them."""


def made_elsewhere(experiment: ExperimentConfig, file: Path) -> dict[str, tuple[Path, str]]:
    """Return the stages whose outputs another dvc.yaml makes: that file, and a note on what differs all the same.

    Args:
        experiment: the configuration.
        file: the dvc.yaml of this experiment, which does not count.

    Raises ConfigError with every key by which another experiment makes something else at the same place.
    """
    others = {output.path: output for output in outputs_elsewhere(file)}
    shared: dict[str, tuple[Path, str]] = {}
    problems: list[Problem] = []
    for stage in stages_of(experiment):
        problems += _nested(stage, others.values())
        found = [others[out] for out in map(plain, stage.outs) if out in others]
        if not found:
            continue
        other, config = found[0].file, found[0].config
        if stage.name not in PLACES:
            fix = "give every experiment a runs.path of its own"
            problems.append(Problem("runs.path", f"{other} writes to {', '.join(map(str, stage.outs))} too", fix=fix))
            continue
        lines = _differences(stage, resolved(experiment), config)
        note = ""
        if stage.name == "train-teacher":  # whatever samples it learns from, it is the teacher at that place
            selection = [line for line in lines if line.partition(":")[0] in {f"data.{key}" for key in SELECTING}]
            lines = [line for line in lines if line not in selection]
            note = f", of other samples ({'; '.join(selection)})" if selection else ""
        for line in lines:
            what = f"{other} makes something else at {', '.join(map(str, stage.outs))}: {line}"
            fix = "name another path here, or make the two configurations agree"
            problems.append(Problem(line.partition(":")[0], what, fix=fix))
        shared[stage.name] = other, note
    if problems:
        raise ConfigError(problems)
    return shared


def _nested(stage: Stage, others: Collection[Output]) -> Iterator[Problem]:
    """Yield a problem for outputs of which one lies inside the other: DVC refuses a repository that has them."""
    for out, other in product(map(plain, stage.outs), others):
        if Path(out) in Path(other.path).parents or Path(other.path) in Path(out).parents:
            what = f"{out}, which {stage.name} makes, and {other.path} of {other.file} lie one inside the other"
            yield Problem(PLACES.get(stage.name, "runs.path"), what, fix="name another path")


def _differences(stage: Stage, mine: Raw, other: Raw) -> list[str]:
    """Return a line for each key that the stage reads and that has another value in the other configuration."""
    lines = []
    for section in stage.sections:
        one, two = _flat(section, _at(mine, section)), _flat(section, _at(other, section))
        for key in dict.fromkeys((*one, *two)):
            if key not in WITHOUT_EFFECT and one.get(key) != two.get(key):
                lines.append(f"{key}: {one.get(key)!r} here, {two.get(key)!r} there")
    return lines


def _at(raw: Raw, key: str) -> Any:
    value: Any = raw
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _flat(key: str, value: Any) -> dict[str, Any]:
    """Return the keys one level below a section, with their values."""
    return {f"{key}.{name}": inner for name, inner in value.items()} if isinstance(value, dict) else {key: value}
