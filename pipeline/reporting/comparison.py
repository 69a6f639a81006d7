"""Compares objective sets with a baseline, and says whether they differ by more than the seeds do.

The yardstick is the larger of the two sample standard deviations over seeds. It is a modest one: were both sets
equally good (normal scores of one variance), chance alone would put their means further apart than once
the yardstick in 33 % of comparisons with two seeds each, 21 % with three and 11 % with five; than twice in
13 %, 4 % and 1 % (simulated). So up to once the spread is no difference, up to twice is a hint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.reporting.summary import SummaryRow

Outcome = Literal["better", "hint of better", "no difference", "hint of worse", "worse", "one seed"]


@dataclass(frozen=True)
class Comparison:
    """Compares an objective set with the baseline, for one student.

    Args:
        student, objectives, baseline: names.
        difference: score of the set minus the baseline's, in points (hundredths), positive if it is better.
        spread: the larger of the two sample standard deviations over seeds, in points; None where both have one seed.
        seeds: how many the set and the baseline have.
    """

    student: str
    objectives: str
    baseline: str
    difference: float
    spread: float | None
    seeds: tuple[int, int]

    @property
    def outcome(self) -> Outcome:
        """Return what the difference means, given the spread."""
        if self.spread is None or min(self.seeds) < 2:
            return "one seed"
        size = abs(self.difference)
        if size <= self.spread:
            return "no difference"
        sure = size > 2 * self.spread
        if self.difference > 0:
            return "better" if sure else "hint of better"
        return "worse" if sure else "hint of worse"

    @property
    def sentence(self) -> str:
        """Return the outcome in words, with the numbers that it rests on."""
        size = f"{abs(self.difference):.2f} points"
        if self.outcome == "one seed":
            level = round(self.difference, 2) == 0
            place = "level with" if level else f"{size} {'above' if self.difference > 0 else 'below'}"
            return f"{self.objectives} is {place} {self.baseline}, but one seed cannot tell that from chance."
        assert self.spread is not None
        spread = f"{self.spread:.2f} points"
        if self.outcome == "no difference":
            signed = f"{self.difference:+.2f} points".replace("-", "−")
            return (
                f"{self.objectives} does not differ from {self.baseline} by more than the spread "
                f"({signed}; spread {spread}; {self._seeds})."
            )
        verb = {
            "better": "beats",
            "hint of better": "is ahead of",
            "hint of worse": "is behind",
            "worse": "is worse than",
        }[self.outcome]
        times = f"{abs(self.difference) / self.spread:.1f} times the spread" if self.spread else "without any spread"
        hint = ": a hint, no more" if self.outcome.startswith("hint") else ""
        return f"{self.objectives} {verb} {self.baseline} by {size}, {times} ({self._seeds}){hint}."

    @property
    def _seeds(self) -> str:
        a, b = self.seeds
        return f"{a} seeds each" if a == b else f"{a} against {b} seeds"


def baseline_of(rows: Sequence[SummaryRow], baseline: str | None = None) -> str | None:
    """Return the objective set that others are compared with; None without rows.

    Args:
        rows: of all sets.
        baseline: the preferred one; None, or one that is not there, takes `hard`, else the first.
    """
    sets = list(dict.fromkeys(row.objectives for row in rows))
    if baseline in sets:
        return baseline
    return "hard" if "hard" in sets else next(iter(sets), None)


def compare(rows: Sequence[SummaryRow], baseline: str | None = None) -> list[Comparison]:
    """Compare every other objective set of every student with the baseline's row of the same student.

    Args:
        rows: of all sets.
        baseline: as of `baseline_of`.
    """
    base = baseline_of(rows, baseline)
    bases = {row.student: row for row in rows if row.objectives == base}
    return [
        Comparison(
            student=row.student,
            objectives=row.objectives,
            baseline=bases[row.student].objectives,
            difference=100 * row.ranked_by.worth(row.score.mean - bases[row.student].score.mean),
            spread=_larger(row, bases[row.student]),
            seeds=(row.seeds, bases[row.student].seeds),
        )
        for row in rows
        if row.objectives != base and row.student in bases
    ]


def _larger(row: SummaryRow, base: SummaryRow) -> float | None:
    spreads = [100 * stat.spread for stat in (row.score, base.score) if stat.spread is not None]
    return max(spreads) if spreads else None


def verdicts(rows: Sequence[SummaryRow], baseline: str | None = None) -> list[str]:
    """Return a sentence for every comparison, such as `vit: kd beats hard by 1.20 points (3 seeds each).`

    Args:
        rows: of all sets.
        baseline: as of `baseline_of`.
    """
    return [f"{comparison.student}: {comparison.sentence}" for comparison in compare(rows, baseline)]
