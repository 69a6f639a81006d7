"""Finds the dvc.yaml files of a repository, and what their stages write."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config import resolved
from pipeline.dvc_file.stages import stages_of
from pipeline.errors import ConfigError, PipelineError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import ConfigFile
from pipeline.yaml_text import Raw, parse_yaml


class Output(NamedTuple):
    """Describes an output of a stage in some dvc.yaml.

    Args:
        path: as of `plain`.
        file: the dvc.yaml.
        config: all values of the configuration that the stage runs; empty if that is not known.
    """

    path: str
    file: Path
    config: Raw


def written_files() -> list[Path]:
    """Return every dvc.yaml of the repository, or of the working directory outside one, as seen from here."""
    here = Path().resolve()
    root = next((folder for folder in (here, *here.parents) if (folder / ".dvc").is_dir()), here)
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "node_modules")
        if "dvc.yaml" in names:
            found.append(Path(os.path.relpath(Path(folder) / "dvc.yaml", here)))
    return found


def outputs_elsewhere(mine: Path) -> Iterator[Output]:
    """Yield what the stages in other files than `mine` write, but for students.

    Args:
        mine: the dvc.yaml that does not count.

    For a file that `pipeline dvc-file` wrote, the configuration that it names is read instead, since large files take
    seconds to parse.
    """
    for file in written_files():
        if file.resolve() == mine.resolve():
            continue
        text = file.read_text(encoding="utf-8")
        config = re.match(r".*\n#   pipeline dvc-file --config (\S+)", text)
        if config is None:
            yield from _parsed(file, text)
            continue
        if _working_directory(file, text) != Path().resolve():  # of another project in the repository
            yield from _parsed(file, text)
            continue
        try:
            experiment = ConfigFile(Path(config[1])).read(ExperimentConfig)
        except PipelineError:  # it is wrong by now: its own commands report that
            continue
        raw = resolved(experiment)
        for stage in stages_of(experiment):
            if stage.code != "train-students" and f"\n  {stage.name}:\n" in text:
                yield from (Output(plain(out), file, raw) for out in stage.outs)


def _working_directory(file: Path, text: str) -> Path:
    """Return the folder in which the commands of a file run that `pipeline dvc-file` wrote."""
    found = re.search(r"\n    wdir: (\S+)\n", text)
    return (file.parent / (found[1] if found else ".")).resolve()


def _parsed(file: Path, text: str) -> Iterator[Output]:
    """Yield the outputs of a dvc.yaml that somebody wrote by hand: it names no configuration."""
    try:
        value = parse_yaml(text, str(file))
    except ConfigError:  # DVC reports it
        return
    stages: dict[str, Any] = (value or {}).get("stages") or {}
    for body in stages.values():
        for out in body.get("outs") or ():
            name = next(iter(out)) if isinstance(out, dict) else out
            yield Output(plain(file.parent / body.get("wdir", ".") / name), file, {})


def plain(path: Path) -> str:
    """Return a path relative to the working directory, always written in the same way."""
    return os.path.normpath(os.path.relpath(path))
