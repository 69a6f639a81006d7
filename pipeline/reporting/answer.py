"""Says which student to ship and why, and what more accuracy costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.reporting import tables
from pipeline.reporting.comparison import Comparison
from pipeline.reporting.exports import ExportedStudent, smallest_exports
from pipeline.reporting.front import Choice, choose_student, front_of, level_with
from pipeline.reporting.page_table import file_text
from pipeline.reporting.results import Evaluation
from pipeline.reporting.summary import SummaryRow

NAMED = 5
"""How many names a sentence lists."""


def reasons(
    evaluation: Evaluation, rows: Sequence[SummaryRow], choice: Choice, comparisons: Sequence[Comparison]
) -> list[str]:
    """Return why the student of a choice is the one to ship, in sentences.

    Args:
        evaluation: has the teacher.
        rows: of the students.
        choice: among them.
        comparisons: with the baseline.
    """
    score, row, best = evaluation.score, choice.row, choice.best
    mine = f"{tables.stat(row.score, 100)} %"
    if row is best:
        said = [f"Its {score.title}, {mine}, is the highest." if len(rows) > 1 else f"Its {score.title} is {mine}."]
    else:
        times = best.macs / row.macs if row.macs else 1.0
        cheaper = f"takes {times:.2g} times fewer multiply-accumulates" if times > 1 else "costs no more"
        said = [
            f"Its {score.title} is {mine}. {best.student} by {best.objectives} has the highest mean, "
            f"{tables.stat(best.score, 100)} %, but {_too_close(choice)}, and {row.student} {cheaper}."
        ]
    said += _level(rows, choice)
    if choice.margin is not None and len(rows) > 1:
        said.append(
            f"The yardstick is the standard error of the best mean, {choice.margin:.2f} points: its standard deviation "
            f"over {best.seeds} seeds, by the root of their number. How much others vary does not count for them."
        )
    said += _beside_teacher(evaluation, row)
    said += [each.sentence for each in comparisons if (each.student, each.objectives) == (row.student, row.objectives)]
    if row.seeds == 1 and len(rows) > 1:
        said.append("It was trained with one seed: a small lead over others may be chance.")
    if len(rows) > 1:
        said.append(
            f"The best of {len(rows)} was picked by the same images that score it, so its figure is a little too good."
        )
    return said


def ship_sentence(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> list[str]:
    """Say which student to ship, and the first reason; nothing without students, or of one alone.

    Args:
        evaluation: has the teacher.
        rows: of the students.
    """
    choice = choose_student(rows)
    if choice is None or len(rows) < 2:
        return []
    first = reasons(evaluation, rows, choice, ())[0]
    return [f"to ship: {choice.row.student} by {choice.row.objectives}. {first}"]


def _too_close(choice: Choice) -> str:
    if choice.margin is None or choice.behind == 0:
        return f"the two differ by {choice.behind:.2f} points"
    return f"it is ahead by {choice.behind:.2f} points, no more than chance may give ({choice.margin:.2f})"


def _level(rows: Sequence[SummaryRow], choice: Choice) -> list[str]:
    """Return how many others the seeds cannot tell from the one that is shipped."""
    others = [each for each in level_with(rows, choice.best) if each is not choice.row and each is not choice.best]
    if not others or choice.row.seeds < 2:
        return []
    names = ", ".join(f"{each.student} by {each.objectives}" for each in others[:NAMED])
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return [f"Too close to the best to be worse for certain, though not cheaper: {names}{more}."]


def _beside_teacher(evaluation: Evaluation, row: SummaryRow) -> list[str]:
    teacher = evaluation.teacher
    if teacher is None:
        return ["What the teacher says of these images is not known, so nothing is compared with it."]
    value = teacher.value(evaluation.score)
    if value is None:
        return []
    gap = 100 * (value - row.score.mean)
    place = f"{abs(gap):.2f} points {'above' if gap > 0 else 'below'} it" if round(gap, 2) else "level with it"
    costs = (("multiply-accumulates", teacher.macs, row.macs), ("parameters", teacher.parameters, row.parameters))
    ratios = [f"{theirs / own:.3g} times its {name}" for name, theirs, own in costs if theirs and own]
    cost = f", with {' and '.join(ratios)}" if ratios else ""
    return [f"The teacher, {teacher.model}, is {place} ({100 * value:.2f} %){cost}."]


def ladder(rows: Sequence[SummaryRow], exports: Sequence[ExportedStudent]) -> list[dict[str, Any]]:
    """Return the front over multiply-accumulates, the cheapest first, with what each step up adds and costs.

    Args:
        rows: of the students.
        exports: of them.
    """
    front = [rows[i] for i in front_of(rows, [float(row.macs) for row in rows])]
    smallest = smallest_exports(exports)
    steps: list[dict[str, Any]] = []
    for place, row in enumerate(front):
        step = ""
        if place:
            gain = 100 * abs(row.score.mean - front[place - 1].score.mean)
            times = row.macs / front[place - 1].macs if front[place - 1].macs else 1.0
            step = f"+{gain:.2f} points for {times:.3g} times the MACs"
        figures = smallest.get((row.student, row.objectives))
        steps.append(
            {
                "row": row,
                "score": tables.stat(row.score, 100),
                "macs": tables.count(row.macs),
                "parameters": tables.count(row.parameters),
                "rate": tables.count(row.images_per_second),
                "file": file_text(figures),
                "step": step,
            }
        )
    return steps
