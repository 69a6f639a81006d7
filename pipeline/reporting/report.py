"""Writes the report: one page that stands alone, the same numbers for programs, and a picture for a README."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.files import write_atomic
from pipeline.reporting import plots, tables
from pipeline.reporting.front import choose_student
from pipeline.reporting.ownership import refuse_foreign_report
from pipeline.reporting.page import Findings, page, shown_rows
from pipeline.reporting.render import png
from pipeline.reporting.results import Evaluation
from pipeline.reporting.summary import SummaryRow


def write_report(folder: Path, findings: Findings) -> Path:
    """Write the report into the folder and return the path of `report.html`.

    Beside it: `table.md`, `summary.json` (for `dvc metrics show`), `accuracy_cost.csv` (for `dvc plots`) and
    `overview.png` (1400 pixels wide). The same input gives the same bytes.

    Args:
        findings: what it shows.

    Raises DataError for files of these names that are of no report.
    """
    refuse_foreign_report(folder)
    evaluation, rows = findings.evaluation, findings.rows
    lead = shown_rows(rows, choose_student(rows))
    contents: dict[str, str | bytes] = {
        "table.md": tables.markdown(evaluation, rows),
        "summary.json": json.dumps(summary(evaluation, rows), indent=2) + "\n",
        "accuracy_cost.csv": accuracy_cost(evaluation, rows),
        "overview.png": png(plots.overview(evaluation, lead, findings.histories)),
        "report.html": page(findings),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return folder / "report.html"


def summary(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> dict[str, Any]:
    """Return numbers by student and objective set: fractions, nats, seconds; `<metric>_spread` from two seeds on.

    Args:
        evaluation: has the teacher.
        rows: of the students.
    """
    students: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        students.setdefault(row.student, {})[row.objectives] = _numbers(row)
    result: dict[str, Any] = {"students": students}
    if evaluation.teacher:
        teacher = {name: v for name, v in evaluation.teacher.metrics.to_json().items() if v is not None}
        result = {"teacher": teacher, **result}
    return result


def _numbers(row: SummaryRow) -> dict[str, float]:
    numbers: dict[str, float] = {}
    values = {row.ranked_by.name: row.score}
    values |= {name: stat for name in ("agreement", "kl", "nll", "ece", "knn", "probe") if (stat := getattr(row, name))}
    values |= {f"agreement_with_{name}": stat for name, stat in row.agreements.items()}
    for name, stat in values.items():
        if stat is not None:
            numbers[name] = stat.mean
            if stat.spread is not None:
                numbers[f"{name}_spread"] = stat.spread
    numbers |= {"parameters": row.parameters, "macs": row.macs}
    for name in ("images_per_second", "train_seconds"):
        value: float | None = getattr(row, name)
        if value is not None:
            numbers[name] = value
    return numbers


def accuracy_cost(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> str:
    """Return CSV, teacher first: one line per student and objective set, empty where unknown; the score in [0, 1].

    Args:
        evaluation: has the teacher.
        rows: of the students.
    """
    score = evaluation.score
    names = ("parameters", "macs", "images_per_second", score.name, f"{score.name}_spread")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["student", "objectives", *names])
    teacher = evaluation.teacher
    if teacher:
        costs = [teacher.parameters, teacher.macs, teacher.images_per_second]
        writer.writerow([teacher.model, "teacher", *costs, teacher.value(score), None])
    for row in rows:
        numbers = _numbers(row)
        writer.writerow([row.student, row.objectives, *(numbers.get(name) for name in names)])
    return buffer.getvalue()
