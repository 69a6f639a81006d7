"""Measures the teacher and every trained student on one split, and what they cost: the stage `evaluate`."""

from __future__ import annotations

import sys
from typing import Any

from pipeline.errors import DataError
from pipeline.experiment.details import DetailsCollector
from pipeline.experiment.evaluator import EvaluatedSections, Evaluator
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.runs import RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.files import write_atomic
from pipeline.progress import Lines, doing
from pipeline.reporting.ownership import refuse_foreign_evaluation
from pipeline.reporting.results import Evaluation
from pipeline.reporting.summary import write_evaluation


class Inputs(EvaluatedSections, RunsSection):
    """Declares the sections that this stage reads. Of objective sets only the names count, so no method is imported."""

    objectives: dict[str, Any]


def run(source: ConfigFile) -> None:
    """Write `evaluation.json`, its accuracies for DVC, and `details.json` for the report.

    Students that are not trained yet are left out, with a note.

    Args:
        source: the configuration.
    """
    inputs = source.read(Inputs)
    refuse_foreign_evaluation(inputs.runs.evaluation, inputs.runs.metrics, inputs.runs.details)
    experiment = Experiment(inputs)
    _ = experiment.dataset  # opened first, so that a missing data set is reported before missing students
    folders = inputs.runs.folders(inputs.students, inputs.objectives)
    trained = [folder for folder in folders if (folder / "metrics.json").exists()]
    if not trained:
        where = inputs.runs.path / "students"
        raise DataError("no student is trained yet", where=where, fix="run `pipeline train-student`")
    for folder in folders:
        if folder not in trained:
            print(f"note: {folder} is not trained yet and left out", file=sys.stderr)
    evaluator, progress = Evaluator(experiment), Lines()
    progress.begin("evaluating", len(trained), "students")
    students, details = [], DetailsCollector(evaluator, len({folder.parent for folder in trained}))
    for folder in trained:
        students.append(evaluator.student(folder))
        details.add(students[-1])
        progress.advance(1, folder.as_posix())
    progress.end()
    with doing("measuring the teacher"):
        split, teacher = inputs.evaluate.split, evaluator.teacher()
    evaluation = Evaluation(experiment=source.file.stem, split=split, teacher=teacher, students=tuple(students))
    write_atomic(inputs.runs.details, details.details(evaluation).to_text())
    write_evaluation(evaluation, inputs.runs.evaluation, inputs.runs.metrics)
    print(f"{inputs.runs.evaluation}: {len(students)} student{'s' if len(students) != 1 else ''} on split {split!r}")
