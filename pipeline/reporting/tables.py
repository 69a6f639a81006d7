"""Writes the table of students, teacher first, as Markdown and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from pipeline.progress import duration
from pipeline.reporting.results import Evaluation, Stat, SummaryRow

COLUMNS = (
    "student",
    "objectives",
    "seeds",
    "top-1 (%)",
    "agreement (%)",
    "KL (nats)",
    "ECE (%)",
    "parameters",
    "MACs",
    "images/s",
    "training",
)
NAMES = 2
"""How many columns hold names; the others hold numbers and stand to the right."""
UNKNOWN = "–"
"""The cell of a value that was not measured."""


def cells(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> list[list[str]]:
    """Return the texts of the table, [rows][columns]: the teacher's row, if there is a teacher, then one for every row.

    evaluation: has the teacher. rows: of the students.
    """
    table = [[*_teacher(evaluation)]] if evaluation.teacher else []
    for row in rows:
        scores = [stat(row.top1, 100), stat(row.agreement, 100), stat(row.kl, 1, 3), stat(row.ece, 100)]
        costs = [count(row.parameters), count(row.macs), count(row.images_per_second)]
        table.append([row.student, row.objectives, str(row.seeds), *scores, *costs, rounded_seconds(row.train_seconds)])
    return table


def _teacher(evaluation: Evaluation) -> list[str]:
    teacher = evaluation.teacher
    assert teacher is not None
    scores = [stat(Stat(teacher.metrics.top1, None), 100), UNKNOWN, UNKNOWN, stat(Stat(teacher.metrics.ece, None), 100)]
    costs = [count(teacher.parameters), count(teacher.macs), count(teacher.images_per_second)]
    return [f"teacher ({teacher.model})", UNKNOWN, UNKNOWN, *scores, *costs, UNKNOWN]


def markdown(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> str:
    """Return the table of an evaluation in Markdown, with a line on how to read it. rows: of the students."""
    lines = [list(COLUMNS), ["---"] * NAMES + ["---:"] * (len(COLUMNS) - NAMES), *cells(evaluation, rows)]
    text = "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)
    return f"{text}\n\n{note(evaluation, rows)}\n"


def _escape(cell: str) -> str:
    """Return a cell that cannot end its row, open a tag or start emphasis."""
    text = " ".join(cell.split())
    for character in "\\|*_`<[":
        text = text.replace(character, "\\" + character)
    return text


def terminal(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> Table:
    """Return the table of an evaluation for rich's console; names are never read as markup. rows: of the students."""
    table = Table(title=Text(evaluation.experiment), caption=Text(note(evaluation, rows)))
    for i, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if i < NAMES else "right", no_wrap=i >= NAMES)
    for i, line in enumerate(cells(evaluation, rows)):
        table.add_row(*(Text(cell) for cell in line), end_section=i == 0 and evaluation.teacher is not None)
    return table


def note(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> str:
    """Return how many images and seeds an evaluation rests on, for people. rows: of the students."""
    counts = {student.metrics.count for student in evaluation.students}
    if evaluation.teacher:
        counts.add(evaluation.teacher.metrics.count)
    images = " or ".join(f"{n:,}" for n in sorted(counts)) or "no"
    text = f"Split {evaluation.split!r}, {images} images."
    if any(row.seeds > 1 for row in rows):
        text += " Mean ± sample standard deviation over seeds."
    if any(row.seeds == 1 for row in rows):
        text += " One seed has no spread."
    return text


def stat(value: Stat | None, scale: float, digits: int = 2) -> str:
    """Return a text such as `71.20 ± 0.31`; without the spread for one seed.

    value: None is unknown. scale: multiplies it. digits: after the point.
    """
    if value is None:
        return UNKNOWN
    text = f"{scale * value.mean:.{digits}f}"
    return text if value.spread is None else f"{text} ± {scale * value.spread:.{digits}f}"


def count(value: float | None) -> str:
    """Return a number to three digits with the SI prefix: `272 k`, `41.3 M`, `7.8`. value: None is unknown."""
    if value is None or not math.isfinite(value):
        return UNKNOWN
    for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:  # what would round to 1000 of the smaller unit is 1 of this one
            return f"{_three(value / size)} {prefix}"
    return f"{value:.0f}" if value == round(value) else _three(value)


def _three(value: float) -> str:
    """Return three significant digits, never in powers of ten: `7.83`, `41.3`, `272`."""
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f}"


def rounded_seconds(value: float | None) -> str:
    """Return a duration in words, to tenths of a second below ten. value: seconds; None is unknown."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f} s" if value < 9.95 else duration(value)
