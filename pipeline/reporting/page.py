"""Makes the page of a report: one file of HTML that answers which student to ship, and shows what that rests on."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from pipeline.measuring.measured import Metrics
from pipeline.measuring.score import SCORES
from pipeline.reporting import page_details, tables
from pipeline.reporting.answer import ladder, reasons
from pipeline.reporting.charts import cost_charts, export_charts, learning_charts, moved_apart
from pipeline.reporting.comparison import Comparison, baseline_of, compare
from pipeline.reporting.details import Details
from pipeline.reporting.exports import ExportedStudent
from pipeline.reporting.front import Choice, choose_student, front_of
from pipeline.reporting.page_table import (
    SYMBOLS,
    export_lines,
    page_headings,
    seed_cells,
    student_lines,
    teacher_cells,
)
from pipeline.reporting.results import Evaluation, HistoryTable
from pipeline.reporting.styles import TEACHER_GLYPH, Styles
from pipeline.reporting.summary import SummaryRow, summarise

SHOWN = 12
"""How many students, with an objective set each, have charts of their own; the table has all."""


@dataclass(frozen=True)
class Findings:
    """Holds all that a report is made of.

    Args:
        evaluation: the results.
        histories: of all runs.
        config_yaml: the configuration as text.
        exports: what was measured of exports.
        details: what `evaluate` found beyond its figures; None if that is not at hand.
    """

    evaluation: Evaluation
    histories: Sequence[HistoryTable]
    config_yaml: str
    exports: Sequence[ExportedStudent] = field(default=())
    details: Details | None = None

    @property
    def rows(self) -> list[SummaryRow]:
        """Return the summary over seeds."""
        return summarise(self.evaluation)


def page(findings: Findings) -> str:
    """Return the HTML of the report: inline style, script and charts, nothing fetched, every name escaped.

    Args:
        findings: what it shows.
    """
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_part),
    )
    evaluation, rows = findings.evaluation, findings.rows
    styles, choice, comparisons = Styles.of(rows), choose_student(rows), compare(rows)
    shown = shown_rows(rows, choice)
    students = list(dict.fromkeys(row.student for row in shown))
    script = _part("report.js")
    return environment.get_template("report.html.j2").render(
        evaluation=evaluation,
        subtitle=_subtitle(evaluation, rows),
        note=tables.note(evaluation, rows),
        score=evaluation.score,
        style=Markup(_part("report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        answer=reasons(evaluation, rows, choice, comparisons) if choice else [],
        choice=choice,
        ladder=ladder(rows, findings.exports),
        costs=cost_charts(evaluation, rows, styles),
        moved_apart=moved_apart(rows),
        exported=export_charts(findings.exports, styles),
        export_rows=export_lines(findings.exports),
        stale=[each for each in findings.exports if each.stale],
        columns=page_headings(evaluation, rows, findings.exports),
        teacher=teacher_cells(evaluation, rows, findings.exports),
        lines=student_lines(evaluation, rows, comparisons, findings.exports, styles),
        verdicts=_verdicts(comparisons),
        many=len(comparisons) > 2 * SHOWN,
        baseline=baseline_of(rows),
        **_beyond(findings.details, shown, choice, styles),
        curves=learning_charts(students, findings.histories, styles),
        shown=shown,
        left_out=len(rows) - len(shown),
        holdout=any(bool((h.column(score.column) >= 0).any()) for h in findings.histories for score in SCORES),
        spread=any(row.seeds > 1 for row in rows),
        embedded=any(row.knn for row in rows),
        by_neighbours=any(_by_neighbours(each.metrics) for each in evaluation.students),
        seeds=[seed_cells(result) for result in evaluation.students],
        styles=styles,
        sets=list(styles.colours),
        students=list(styles.markers),
        teacher_glyph=TEACHER_GLYPH,
        symbols=SYMBOLS,
        config=findings.config_yaml,
    )


def _beyond(
    details: Details | None, shown: Sequence[SummaryRow], choice: Choice | None, styles: Styles
) -> dict[str, Any]:
    """Return what the page shows of `details.json`; `details` is None where that is not at hand."""
    if details is None:
        return {"details": None}
    first = [row for row in shown if choice and row is choice.row]
    ordered = [*first, *(row for row in shown if row not in first)]
    return {
        "details": details,
        "reliability": page_details.calibration_charts(details, shown, styles),
        "by_class": page_details.class_charts(details, shown, styles),
        "class_sentences": page_details.class_sentences(details, choice.row) if choice else [],
        "class_table": page_details.class_table(details, shown, choice),
        "mistakes": page_details.mistakes(details, ordered),
        "galleries": page_details.galleries(details, ordered),
        "caches": [(cache, page_details.cache_facts(cache)) for cache in details.caches],
    }


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _by_neighbours(metrics: Metrics) -> bool:
    """Tell whether agreement is that of neighbours: the student or the teacher has no logits."""
    return metrics.kl is None and metrics.agreement is not None


def shown_rows(rows: Sequence[SummaryRow], choice: Choice | None) -> list[SummaryRow]:
    """Return the rows that have charts of their own, in the order of the table: all, or the best of many.

    Args:
        rows: of the students.
        choice: is shown first, then the front, then what is left by score.
    """
    if len(rows) <= SHOWN or choice is None:
        return list(rows)
    front = front_of(rows, [float(row.macs) for row in rows])
    ranked = sorted(range(len(rows)), key=lambda i: -rows[i].ranked_by.worth(rows[i].score.mean))
    first = [i for i, row in enumerate(rows) if row is choice.row or row is choice.best]
    kept = list(dict.fromkeys([*first, *reversed(front), *ranked]))[:SHOWN]
    return [rows[i] for i in sorted(kept)]


def _subtitle(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> list[str]:
    students = len({row.student for row in rows})
    sets = len({row.objectives for row in rows})
    parts = [f"teacher {evaluation.teacher.model}"] if evaluation.teacher else []
    for number, name in ((students, "student"), (sets, "objective set"), (len(evaluation.students), "training run")):
        parts.append(f"{number:,} {name}{'' if number == 1 else 's'}")
    return parts


def _verdicts(comparisons: Sequence[Comparison]) -> dict[str, list[tuple[str, str]]]:
    """Return outcome and sentence of every comparison, by student."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for comparison in comparisons:
        groups.setdefault(comparison.student, []).append((comparison.outcome, comparison.sentence))
    return groups
