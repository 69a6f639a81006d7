"""Exports a student that a configuration or a folder names, and prints the table."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pipeline import plugins
from pipeline.errors import ConfigError, DataError, unknown_name
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.section_sets import LearningSections
from pipeline.experiment.sections import StudentsSection
from pipeline.experiment.source import ConfigFile
from pipeline.shipping.exporting import export, export_table, opened_for_export
from pipeline.shipping.format import FORMATS, Format, format_named, refuse_unknown_formats
from pipeline.shipping.split import EvaluatedSplit, calibration_views
from pipeline.shipping.student import ShippedStudent


class ExportSections(LearningSections, StudentsSection, RunsSection):
    """Declares what an export reads of a configuration."""


def export_run(
    source: ConfigFile,
    name: RunName,
    output: Path | None,
    formats: tuple[str, ...],
    threads: int | None,
    *,
    replace: bool,
    wait: bool,
) -> Path:
    """Export a student of a configuration, calibrated and measured on its data; return the folder.

    Args:
        source: the configuration.
        name: of the run.
        output: None for a folder below `runs.path`.
        formats: their names; none are all that the student fits.
        threads: None for as many as torch uses.
        replace, wait: as of `export`.
    """
    refuse_unknown_formats(formats)
    inputs = source.read(ExportSections)
    if name.student not in inputs.students:
        raise ConfigError([unknown_name("--student", name.student, inputs.students)])
    folder = inputs.runs.student(*name)
    if not folder.is_dir():
        fix = f"run `pipeline train-student --student {name.student} --objectives {name.objectives} --seed {name.seed}`"
        raise DataError("the student is not trained yet", where=folder, fix=fix)
    experiment: Experiment[LearningSections] = Experiment(inputs)
    configured = inputs.students[name.student].model
    student = ShippedStudent.open(folder, configured)
    output = output or inputs.runs.path / "exports" / name.student / name.objectives / f"seed-{name.seed}"
    views = calibration_views(experiment, student.model.input)
    _run(student, views, EvaluatedSplit.of(experiment), output, formats, threads, replace=replace, wait=wait)
    return output


def export_folder(
    folder: Path,
    output: Path,
    formats: tuple[str, ...],
    threads: int | None,
    code: str | None,
    *,
    replace: bool,
    wait: bool,
) -> Path:
    """Export the student in a folder, without data: nothing is calibrated, and no accuracy is measured.

    Returns `output`.

    Args:
        folder, code: as of `ShippedStudent.open`.
        output, formats, threads, replace, wait: as of `export_run`; there is no default for `output`.
    """
    refuse_unknown_formats(formats)
    student = ShippedStudent.open(folder, code)
    _run(student, None, None, output, formats, threads, replace=replace, wait=wait)
    return output


def _run(
    student: ShippedStudent,
    calibration: Tensor | None,
    split: EvaluatedSplit | None,
    output: Path,
    formats: tuple[str, ...],
    threads: int | None,
    *,
    replace: bool,
    wait: bool,
) -> None:
    exported = opened_for_export(student, calibration)
    threads = threads or torch.get_num_threads()
    chosen = list(dict.fromkeys(formats)) or _fitting(student, calibrated=calibration is not None)
    rows = export(exported, chosen, output, split=split, threads=threads, replace=replace, wait=wait)
    for line in export_table(rows, split.samples.split.name if split is not None else None, threads):
        print(line)


def _fitting(student: ShippedStudent, *, calibrated: bool) -> list[str]:
    """Return the formats that a student can be written in, with a note on each other one."""
    found = []
    for name in plugins.names(FORMATS):
        form: Format = format_named(name)
        why = form.refusal(student)
        if why is None and not form.EXACT and not calibrated:
            why = "there are no views to calibrate with: name the student by --student, with its --config"
        if why is None:
            found.append(name)
        else:
            print(f"note: {name} is left out: {why}")
    return found
