"""Writes the report: one page that stands alone, the same numbers for programs, and a picture for a README."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.files import write_atomic
from pipeline.measuring.score import SCORES
from pipeline.reporting import plots, tables
from pipeline.reporting.comparison import baseline_of, compare
from pipeline.reporting.ownership import refuse_foreign_report
from pipeline.reporting.render import png, svg
from pipeline.reporting.results import Evaluation, HistoryTable, StudentResult
from pipeline.reporting.styles import TEACHER_GLYPH, Styles
from pipeline.reporting.summary import Stat, SummaryRow, summarise

SYMBOLS = {
    "better": "▲",
    "hint of better": "△",
    "no difference": "≈",
    "hint of worse": "▽",
    "worse": "▼",
    "one seed": "·",
}


def write_report(folder: Path, evaluation: Evaluation, histories: Sequence[HistoryTable], config_yaml: str) -> Path:
    """Write the report into the folder and return the path of `report.html`.

    Beside it: `table.md`, `summary.json` (for `dvc metrics show`), `accuracy_cost.csv` (for `dvc plots`) and
    `overview.png` (1400 pixels wide). The same input gives the same bytes.

    Args:
        evaluation: the results.
        histories: of all runs.
        config_yaml: the configuration as text.

    Raises DataError for files of these names that are of no report.
    """
    refuse_foreign_report(folder)
    rows = summarise(evaluation)
    contents: dict[str, str | bytes] = {
        "table.md": tables.markdown(evaluation, rows),
        "summary.json": json.dumps(summary(evaluation, rows), indent=2) + "\n",
        "accuracy_cost.csv": accuracy_cost(evaluation, rows),
        "overview.png": png(plots.overview(evaluation, rows, histories)),
        "report.html": page(evaluation, rows, histories, config_yaml),
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return folder / "report.html"


def page(
    evaluation: Evaluation, rows: Sequence[SummaryRow], histories: Sequence[HistoryTable], config_yaml: str
) -> str:
    """Return the HTML of the report: inline style and plots, nothing fetched, every name escaped.

    Args:
        evaluation: the results.
        rows: its summary.
        histories: of all runs.
        config_yaml: the configuration as text.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8"))
    curves = plots.learning_curves(rows, histories)
    costs = plots.accuracy_against_cost(evaluation, rows)
    styles = Styles.of(rows)
    return template.render(
        evaluation=evaluation,
        subtitle=_subtitle(evaluation, rows),
        note=tables.note(evaluation, rows),
        columns=tables.headings(evaluation),
        score=evaluation.score,
        embedded=any(row.knn for row in rows),
        teacher=tables.cells(evaluation, ())[0] if evaluation.teacher else None,
        groups=_groups(evaluation, rows, styles),
        verdicts=_verdicts(rows),
        baseline=baseline_of(rows),
        costs=Markup(
            svg(costs, "costs", f"{_capital(evaluation.score.title)} over the cost of every student and of the teacher")
        ),
        curves=Markup(svg(curves, "curves", "Learning curves of every student")) if curves else None,
        holdout=any(bool((h.column(score.column) >= 0).any()) for h in histories for score in SCORES),
        spread=any(row.seeds > 1 for row in rows),
        seeds=[_seed(result) for result in evaluation.students],
        styles=styles,
        teacher_glyph=TEACHER_GLYPH,
        symbols=SYMBOLS,
        config=config_yaml,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _subtitle(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> list[str]:
    students = len({row.student for row in rows})
    sets = len({row.objectives for row in rows})
    parts = [f"teacher {evaluation.teacher.model}"] if evaluation.teacher else []
    for number, name in ((students, "student"), (sets, "objective set"), (len(evaluation.students), "training run")):
        parts.append(f"{number} {name}{'' if number == 1 else 's'}")
    return parts


def _groups(evaluation: Evaluation, rows: Sequence[SummaryRow], styles: Styles) -> list[dict[str, Any]]:
    """Return the table's rows by student, with the best mean score of each marked."""
    texts = tables.cells(evaluation, rows)[1 if evaluation.teacher else 0 :]
    groups: dict[str, list[dict[str, Any]]] = {}
    for row, cells in zip(rows, texts, strict=True):
        best = max((other.score.mean for other in rows if other.student == row.student), key=row.ranked_by.worth)
        alone = sum(other.student == row.student for other in rows) == 1
        line = {"objectives": row.objectives, "cells": cells[2:], "best": row.score.mean == best and not alone}
        groups.setdefault(row.student, []).append(line)
    return [{"student": name, "glyph": styles.glyph(name), "rows": lines} for name, lines in groups.items()]


def _verdicts(rows: Sequence[SummaryRow]) -> dict[str, list[tuple[str, str]]]:
    """Return outcome and sentence of every comparison, by student."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for comparison in compare(rows):
        groups.setdefault(comparison.student, []).append((comparison.outcome, comparison.sentence))
    return groups


def _seed(result: StudentResult) -> list[str]:
    """Return one run's texts: student, set, seed, top-1, top-5, NLL, ECE, agreement, KL, images/s, training time."""
    m = result.metrics
    scaled = ((m.top1, 100, 2), (m.top5, 100, 2), (m.nll, 1, 3), (m.ece, 100, 2), (m.agreement, 100, 2), (m.kl, 1, 3))
    scores = [tables.stat(None if v is None else Stat(v, None), scale, digits) for v, scale, digits in scaled]
    costs = [tables.count(result.images_per_second), tables.rounded_seconds(result.train_seconds)]
    return [result.student, result.objectives, str(result.seed), *scores, *costs]


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
