"""Finds the students that no other one beats in accuracy and in cost, and the one to ship."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.reporting.summary import SummaryRow


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other point beats, the cheapest first.

    A point is beaten by one that costs no more and is worth no less, and is better in one of the two. Of equal points
    all stay.

    Args:
        points: cost and worth of each.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    found: list[int] = []
    for i in order:
        if not found or points[i][1] > points[found[-1]][1] or points[i] == points[found[-1]]:
            found.append(i)
    return found


def front_of(rows: Sequence[SummaryRow], costs: Sequence[float | None]) -> list[int]:
    """Return the places of the rows on the front of score and cost, the cheapest first.

    Args:
        rows: of the students.
        costs: of each; a row of unknown cost is not on the front.
    """
    known = [i for i, cost in enumerate(costs) if cost is not None]
    points = [(cost, _worth(rows[i])) for i in known if (cost := costs[i]) is not None]
    return [known[i] for i in pareto_front(points)]


@dataclass(frozen=True)
class Choice:
    """Names the student to ship.

    Args:
        row: the cheapest, in multiply-accumulates, of those that cannot be told from the best.
        best: the one of the highest mean score.
        behind: by how many points `row` is worse; 0 where both are one.
        margin: the standard error of the best mean, in points; None where one of the two has a single seed.
    """

    row: SummaryRow
    best: SummaryRow
    behind: float
    margin: float | None


def choose_student(rows: Sequence[SummaryRow]) -> Choice | None:
    """Return the student to ship; None without rows.

    A student cannot be told from the best if its mean is behind by no more than one standard error of the best mean,
    which is the standard deviation over seeds by the root of their number (Breiman, Friedman, Olshen and Stone,
    "Classification and Regression Trees", 1984: the one-standard-error rule), or if the two are equal. How much a
    student's own scores vary does not count: the unsteadier it is, the less can it be told from any other, and that
    recommends nobody.

    Args:
        rows: of the students.
    """
    if not rows:
        return None
    best = max(rows, key=lambda row: (_worth(row), -row.macs, -row.parameters))
    row = min(level_with(rows, best), key=lambda row: (row.macs, row.parameters, -_worth(row)))
    return Choice(row, best, _behind(row, best), _margin(row, best))


def level_with(rows: Sequence[SummaryRow], best: SummaryRow) -> list[SummaryRow]:
    """Return the rows that cannot be told from the best one: behind by no more than its mean's standard error.

    Args:
        rows: of the students.
        best: of the highest mean.
    """
    return [row for row in rows if _behind(row, best) <= (_margin(row, best) or 0.0)]


def _margin(row: SummaryRow, best: SummaryRow) -> float | None:
    """Return the standard error of the best mean, in points; None where one of the two has a single seed."""
    if min(row.seeds, best.seeds) < 2 or best.score.spread is None:
        return None
    return 100 * best.score.spread / math.sqrt(best.seeds)


def _worth(row: SummaryRow) -> float:
    return row.ranked_by.worth(row.score.mean)


def _behind(row: SummaryRow, best: SummaryRow) -> float:
    return 100 * (_worth(best) - _worth(row))
