"""Writes the dvc.yaml of a configuration, and finds those that no longer fit: the command `dvc-file`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pipeline.dvc_file.shared import made_elsewhere
from pipeline.dvc_file.stages import stages_of
from pipeline.dvc_file.tree import written_files
from pipeline.errors import ConfigError, Problem
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import ConfigFile
from pipeline.files import write_atomic
from pipeline.measuring.score import AGREEMENT, TOP1
from pipeline.planning.targets import data_problems, target_problems
from pipeline.yaml_text import read_config, to_yaml

COMMAND = "#   pipeline dvc-file --config {config}{target}"
"""The second line of a dvc.yaml that was written here."""


def stage_file(experiment: ExperimentConfig, source: ConfigFile, folder: Path) -> dict[str, Any]:
    """Return what a dvc.yaml holds for an experiment that is run from the working directory.

    Args:
        experiment: the configuration.
        source: its file.
        folder: that of the dvc.yaml.

    What a dvc.yaml elsewhere makes already, of the same, is left to it. Raises ConfigError if one makes something else
    at the same place.
    """
    config, raw = source.file.as_posix(), read_config(source.file, source.overrides)
    up, with_code = os.path.relpath(Path(), folder), Path("pipeline/cli.py").exists()
    elsewhere = made_elsewhere(experiment, folder / "dvc.yaml")
    stages = {
        stage.name: stage.entry(config, raw, up, with_code=with_code)
        for stage in stages_of(experiment)
        if stage.name not in elsewhere
    }
    students = experiment.runs.folders(experiment.students, experiment.objectives)
    curves = [
        {
            os.path.relpath(student / "history.csv", folder): {
                "x": "epoch",
                "y": ["loss", *_scored(experiment, student.parts[-3])],
                "title": "/".join(student.parts[-3:]),
            }
        }
        for student in students
    ]
    return {"stages": stages, "plots": curves}


def _scored(experiment: ExperimentConfig, student: str) -> list[str]:
    """Return the column of a student's history that has its score on the holdout, if there is one."""
    if experiment.data.holdout is None:
        return []
    return [(AGREEMENT if experiment.students[student].head == "none" else TOP1).column]


def text_of(experiment: ExperimentConfig, source: ConfigFile, output: Path | None) -> str:
    """Return the text of a dvc.yaml, with the command that writes it.

    Args:
        experiment: the configuration.
        source: its file.
        output: where the dvc.yaml goes; None prints it.
    """
    target = f" --output {output.as_posix()}" if output else ""
    head = "# Written by the command below; to change it, edit the configuration and run the command again.\n"
    head += COMMAND.format(config=source.file.as_posix(), target=target) + "\n"
    return head + to_yaml(stage_file(experiment, source, output.parent if output else Path()))


def outdated(experiment: ExperimentConfig, source: ConfigFile) -> list[Path]:
    """Return the dvc.yaml files that were written from this configuration, as it was before, and no longer fit it.

    Args:
        experiment: the configuration.
        source: its file.
    """
    found = []
    for file in written_files():
        lines = file.read_text(encoding="utf-8").splitlines()
        mine = COMMAND.format(config=source.file.as_posix(), target=f" --output {file.as_posix()}")
        if lines[1:2] == [mine] and lines != text_of(experiment, ConfigFile(source.file), file).splitlines():
            found.append(file)
    return found


def refuse_output(output: Path) -> None:
    """Raise ConfigError for an `output` that DVC would not read, and for a file that was not written here."""
    if output.name != "dvc.yaml":
        there = output.with_name("dvc.yaml") if output.suffix else output / "dvc.yaml"
        what = "DVC reads stages from files named dvc.yaml alone"
        raise ConfigError([Problem("--output", what, got=output.as_posix(), fix=f"--output {there.as_posix()}")])
    if not output.exists():
        return
    try:
        lines = output.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    if not any(line.startswith(COMMAND.partition("{")[0]) for line in lines[1:2]):
        what = "the file there was not written by `pipeline dvc-file`, so it is not replaced"
        fix = "name another folder: DVC reads every dvc.yaml of a repository"
        raise ConfigError([Problem("--output", what, got=output.as_posix(), fix=fix)])


def run(source: ConfigFile, output: Path | None) -> None:
    """Write the dvc.yaml of a configuration, or print it.

    Args:
        source: the configuration.
        output: where to write; None prints.

    Raises ConfigError for an output or a target that holds files which Decant did not write.
    """
    if output is not None:
        refuse_output(output)
    if source.overrides:
        fix = "write the values to the configuration, or run the commands without DVC"
        raise ConfigError([Problem("--set", "a dvc.yaml runs the configuration as it is written", fix=fix)])
    experiment = source.read(ExperimentConfig)
    if problems := [*target_problems(experiment), *data_problems(experiment)]:
        raise ConfigError(problems, source.file)
    text = text_of(experiment, source, output)
    if output is None:
        sys.stdout.write(text)
        return
    write_atomic(output, text)
    for stage, (file, note) in made_elsewhere(experiment, output).items():
        print(f"note: {stage} is left to {file}, which makes the same{note}")
