"""Writes the table of students, teacher first, as Markdown and for a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from pipeline.measuring.score import AGREEMENT, KNN, TOP1
from pipeline.progress import duration
from pipeline.reporting.results import Evaluation
from pipeline.reporting.summary import Stat, SummaryRow

NAMES = 2
"""How many columns hold names; the others hold numbers and stand to the right."""
UNKNOWN = "–"
"""The cell of a value that was not measured."""


class Column(NamedTuple):
    """Describes a column of scores: its heading, and what it shows of a student's row and of the teacher."""

    heading: str
    of_row: Callable[[SummaryRow], Stat | None]
    of_teacher: float | None
    scale: float = 100.0
    digits: int = 2


def score_columns(evaluation: Evaluation) -> list[Column]:
    """Return the columns between names and costs: the score, then what else was measured.

    Args:
        evaluation: what the stage `evaluate` wrote.
    """
    teacher, score = evaluation.teacher, evaluation.score
    metrics, embedding = (teacher.metrics, teacher.embedding) if teacher else (None, None)
    found = [Column(score.heading, lambda row: row.score, teacher.value(score) if teacher else None)]
    if score is not AGREEMENT:
        found.append(Column("agreement (%)", lambda row: row.agreement, None))
    named = dict.fromkeys(name for each in evaluation.students for name in each.agreements)
    for name in named:
        of_teacher = teacher.agreements.get(name) if teacher else None
        found.append(Column(f"agreement with {name} (%)", partial(_agreement_with, name), of_teacher))
    if score is TOP1:
        found.append(Column("KL (nats)", lambda row: row.kl, None, 1, 3))
        found.append(Column("ECE (%)", lambda row: row.ece, metrics.ece if metrics else None))
    embedded = any(each.embedding for each in evaluation.students)
    if embedded and score is not KNN:
        found.append(Column(KNN.heading, lambda row: row.knn, embedding.knn if embedding else None))
    if embedded:
        found.append(Column("linear probe (%)", lambda row: row.probe, embedding.probe if embedding else None))
    return found


def _agreement_with(name: str, row: SummaryRow) -> Stat | None:
    return row.agreements.get(name)


def headings(evaluation: Evaluation) -> list[str]:
    """Return the headings of the table.

    Args:
        evaluation: what the stage `evaluate` wrote.
    """
    scores = [column.heading for column in score_columns(evaluation)]
    return ["student", "objectives", "seeds", *scores, "parameters", "MACs", "images/s", "training"]


def cells(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> list[list[str]]:
    """Return the texts of the table, [rows][columns]: the teacher's row, if there is a teacher, then one for every row.

    Args:
        evaluation: has the teacher.
        rows: of the students.
    """
    columns, teacher, table = score_columns(evaluation), evaluation.teacher, []
    if teacher:
        known = [None if each.of_teacher is None else Stat(each.of_teacher, None) for each in columns]
        scores = [stat(value, each.scale, each.digits) for value, each in zip(known, columns, strict=True)]
        costs = [count(teacher.parameters), count(teacher.macs), count(teacher.images_per_second)]
        table.append([f"teacher ({teacher.model})", UNKNOWN, UNKNOWN, *scores, *costs, UNKNOWN])
    for row in rows:
        scores = [stat(each.of_row(row), each.scale, each.digits) for each in columns]
        costs = [count(row.parameters), count(row.macs), count(row.images_per_second)]
        table.append([row.student, row.objectives, str(row.seeds), *scores, *costs, rounded_seconds(row.train_seconds)])
    return table


def markdown(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> str:
    """Return the table of an evaluation in Markdown, with a line on how to read it.

    Args:
        rows: of the students.
    """
    names = headings(evaluation)
    lines = [names, ["---"] * NAMES + ["---:"] * (len(names) - NAMES), *cells(evaluation, rows)]
    text = "\n".join("| " + " | ".join(_escape(cell) for cell in line) + " |" for line in lines)
    return f"{text}\n\n{note(evaluation, rows)}\n"


def _escape(cell: str) -> str:
    """Return a cell that cannot end its row, open a tag or start emphasis."""
    text = " ".join(cell.split())
    for character in "\\|*_`<[":
        text = text.replace(character, "\\" + character)
    return text


def terminal(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> Table:
    """Return the table of an evaluation for rich's console; names are never read as markup.

    Args:
        rows: of the students.
    """
    table = Table(title=Text(evaluation.experiment), caption=Text(note(evaluation, rows)))
    for i, name in enumerate(headings(evaluation)):
        table.add_column(name, justify="left" if i < NAMES else "right", no_wrap=i >= NAMES)
    for i, line in enumerate(cells(evaluation, rows)):
        table.add_row(*(Text(cell) for cell in line), end_section=i == 0 and evaluation.teacher is not None)
    return table


def note(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> str:
    """Return how many images and seeds an evaluation rests on, for people.

    Args:
        rows: of the students.
    """
    counts = {student.metrics.count for student in evaluation.students}
    if evaluation.teacher:
        counts.add(evaluation.teacher.metrics.count)
    images = " or ".join(f"{n:,}" for n in sorted(counts)) or "no"
    text = f"Split {evaluation.split!r}, {images} images."
    learnt = {(each.labels_from, each.images) for one in evaluation.students if (each := one.embedding)}
    for split, labeled in sorted(learnt):
        text += f" kNN and linear probe learn from {labeled:,} labeled images of split {split!r}."
    if len({each.metrics.kl is None for each in evaluation.students if each.metrics.agreement is not None}) == 2:
        text += " Agreement is by top-1 where teacher and student have classifiers, else by nearest neighbours."
    if any(row.seeds > 1 for row in rows):
        text += " Mean ± sample standard deviation over seeds."
    if any(row.seeds == 1 for row in rows):
        text += " One seed has no spread."
    return text


def stat(value: Stat | None, scale: float, digits: int = 2) -> str:
    """Return a text such as `71.20 ± 0.31`; without the spread for one seed.

    Args:
        value: None is unknown.
        scale: multiplies it.
        digits: after the point.
    """
    if value is None:
        return UNKNOWN
    text = f"{scale * value.mean:.{digits}f}"
    return text if value.spread is None else f"{text} ± {scale * value.spread:.{digits}f}"


def count(value: float | None) -> str:
    """Return a number to three digits with the SI prefix: `272 k`, `41.3 M`, `7.8`.

    Args:
        value: None is unknown.
    """
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
    """Return a duration in words, to tenths of a second below ten.

    Args:
        value: seconds; None is unknown.
    """
    if value is None:
        return UNKNOWN
    return f"{value:.1f} s" if value < 9.95 else duration(value)
