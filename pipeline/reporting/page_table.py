"""Makes the rows of the page's tables: texts, and the values that they are sorted by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from pipeline.progress import size
from pipeline.reporting import tables
from pipeline.reporting.comparison import Comparison, baseline_of, compare
from pipeline.reporting.exports import ExportedStudent, ExportFigures, smallest_exports
from pipeline.reporting.front import front_of
from pipeline.reporting.results import Evaluation, StudentResult
from pipeline.reporting.styles import Styles
from pipeline.reporting.summary import Stat, SummaryRow

SYMBOLS = {
    "better": "▲",
    "hint of better": "△",
    "no difference": "≈",
    "hint of worse": "▽",
    "worse": "▼",
    "one seed": "·",
}


class Cell(NamedTuple):
    """Holds a cell of the table: its text, what it is sorted by, and whether it is the best of its student."""

    text: str
    value: float | None
    best: bool = False


def file_text(figures: ExportFigures | None) -> str:
    """Return the bytes and the format of an export.

    Args:
        figures: of the export; None becomes a dash.
    """
    return f"{size(figures.bytes)} ({figures.format})" if figures else tables.UNKNOWN


def page_headings(evaluation: Evaluation, rows: Sequence[SummaryRow], exports: Sequence[ExportedStudent]) -> list[str]:
    """Return the headings of the table of students.

    Args:
        evaluation: has the teacher.
        rows: of the students.
        exports: of them.
    """
    scores = [column.heading for column in tables.score_columns(evaluation)]
    gain = [f"gain over {baseline_of(rows)} (points)"] if compare(rows) else []
    costs = ["parameters", "MACs", "images/s", "training"]
    written = ["smallest export (bytes)"] if smallest_exports(exports) else []
    return ["student", "objectives", "seeds", scores[0], *gain, *scores[1:], *costs, *written]


def teacher_cells(
    evaluation: Evaluation, rows: Sequence[SummaryRow], exports: Sequence[ExportedStudent]
) -> list[str] | None:
    """Return the teacher's name and the texts of its row; None without a teacher.

    Args:
        evaluation, rows, exports: as of `page_headings`.
    """
    if evaluation.teacher is None:
        return None
    name, _, *cells = tables.cells(evaluation, ())[0]
    if compare(rows):
        cells.insert(2, tables.UNKNOWN)
    return [name, *cells, *([tables.UNKNOWN] if smallest_exports(exports) else [])]


def student_lines(
    evaluation: Evaluation,
    rows: Sequence[SummaryRow],
    comparisons: Sequence[Comparison],
    exports: Sequence[ExportedStudent],
    styles: Styles,
) -> list[dict[str, Any]]:
    """Return the table's rows: names, cells, and whether a row is on the front.

    Args:
        evaluation, rows, exports: as of `page_headings`.
        comparisons: with the baseline.
        styles: of the students.
    """
    columns, smallest = tables.score_columns(evaluation), smallest_exports(exports)
    gains = {(each.student, each.objectives): each for each in comparisons}
    front = front_of(rows, [float(row.macs) for row in rows])
    best = {
        row.student: max((o.score.mean for o in rows if o.student == row.student), key=row.ranked_by.worth)
        for row in rows
    }
    counts = {row.student: sum(other.student == row.student for other in rows) for row in rows}
    lines = []
    for place, row in enumerate(rows):
        scores = []
        for column in columns:
            value = column.of_row(row)
            scores.append(Cell(tables.stat(value, column.scale, column.digits), value.mean if value else None))
        if counts[row.student] > 1 and row.score.mean == best[row.student]:
            scores[0] = scores[0]._replace(best=True)
        if comparisons:
            scores.insert(1, _gain(gains.get((row.student, row.objectives))))
        costs = [row.parameters, row.macs, row.images_per_second]
        cells = [Cell(str(row.seeds), row.seeds), *scores, *(Cell(tables.count(value), value) for value in costs)]
        cells.append(Cell(tables.rounded_seconds(row.train_seconds), row.train_seconds))
        if smallest:
            figures = smallest.get((row.student, row.objectives))
            cells.append(Cell(file_text(figures), figures.bytes if figures else None))
        glyph = styles.glyph(row.student)
        lines.append({"row": row, "glyph": glyph, "cells": cells, "front": place in front})
    return lines


def _gain(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell(tables.UNKNOWN, None)
    text = f"{comparison.difference:+.2f}".replace("-", "−")
    return Cell(f"{SYMBOLS[comparison.outcome]} {text}", comparison.difference)


def export_lines(exports: Sequence[ExportedStudent]) -> list[dict[str, Any]]:
    """Return the rows of the table of exports.

    Args:
        exports: of all students.
    """
    rows = []
    for each in exports:
        for one in each.formats:
            top1 = tables.UNKNOWN if one.top1 is None else f"{100 * one.top1:.2f}"
            times = [Cell(f"{one.latency_ms[b]:.3g}", one.latency_ms[b]) if b in one.latency_ms
                     else Cell(tables.UNKNOWN, None) for b in (1, 32)]  # fmt: skip
            cells = [
                Cell(size(one.bytes), one.bytes),
                Cell(top1, one.top1),
                *times,
                Cell(str(each.threads), each.threads),
            ]
            rows.append({"of": each, "format": one.format, "cells": cells})
    return rows


def seed_cells(result: StudentResult) -> list[str]:
    """Return one run's texts: student, set, seed, top-1, top-5, NLL, ECE, agreement, KL, images/s, training time.

    Args:
        result: of the run.
    """
    m = result.metrics
    scaled = ((m.top1, 100, 2), (m.top5, 100, 2), (m.nll, 1, 3), (m.ece, 100, 2), (m.agreement, 100, 2), (m.kl, 1, 3))
    scores = [tables.stat(None if v is None else Stat(v, None), scale, digits) for v, scale, digits in scaled]
    costs = [tables.count(result.images_per_second), tables.rounded_seconds(result.train_seconds)]
    return [result.student, result.objectives, str(result.seed), *scores, *costs]
