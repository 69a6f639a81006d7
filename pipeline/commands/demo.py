"""Runs the whole road on scikit-learn's digits, in any folder and without a download: the command `demo`."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from pipeline.errors import DataError
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.files import write_atomic

CONFIG = Path(__file__).with_name("demo.yaml")


def run(folder: Path, overrides: tuple[str, ...] = ()) -> Path:
    """Run every stage in a folder; what is finished there already is kept.

    Args:
        folder: is made, if it is not there.
        overrides: of the configuration, `section.key=value`.

    Returns the report. Raises DataError for a folder with another configuration, and without scikit-learn.
    """
    if importlib.util.find_spec("sklearn") is None:
        raise DataError("the digits are scikit-learn's, which is not installed", fix="pip install scikit-learn")
    config = folder / "digits.yaml"
    if config.exists() and config.read_text() != CONFIG.read_text():
        fix = "name another folder, or run the commands with --config digits.yaml there"
        raise DataError("there is another configuration in the folder", where=config, fix=fix)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(config, CONFIG.read_text())
    with chdir(folder):
        source = ConfigFile(Path(config.name), overrides)
        changed = "".join(f" --set {shlex.quote(each)}" for each in overrides)
        for say, stage in _road(source):
            print(f"$ pipeline {say} --config {config.name}{changed}", flush=True)
            stage()
        report = source.read(RunsSection).runs.report / "report.html"
    return folder / report


def _road(source: ConfigFile) -> list[tuple[str, Callable[[], object]]]:
    """The commands, and what they do."""
    from stages import cache_teacher, evaluate, prepare_data, report, train_student, train_teacher

    def student(objectives: str) -> Callable[[], object]:
        name = RunName("small", objectives)
        return lambda: train_student.run(source, name, None, verify="full", replace=False, wait=True)

    return [
        ("prepare-data", lambda: prepare_data.run(source, replace=False)),
        ("train-teacher", lambda: train_teacher.run(source, replace=False, wait=True)),
        ("cache-teacher", lambda: cache_teacher.run(source, replace=False, wait=True)),
        ("train-student --student small --objectives hard", student("hard")),
        ("train-student --student small --objectives kd", student("kd")),
        ("evaluate", lambda: evaluate.run(source)),
        ("report", lambda: report.run(source, write=True, table=True)),
    ]
