"""What the comparison with equal care found, kept in `docs/measured/equal-care.csv`, and the table that is made of it.

A row of the file is a student: its objective set, the constant that varies and its value, the seed, the split that it
was scored on, and the share of images that it is right on. Rows of `holdout` are the tries of a constant, those of
`test` the seeds of the one that was chosen.

The table has the sets best first. Two sets differ if their means lie further apart than Tukey's honestly significant
difference: of all pairs that are no different in truth, with a probability of 0.95 none seems to be. The spread of
seeds is taken for the same in all sets, and is pooled. `place` says which places a set may have: behind all that are
better by more than that, before all that are worse.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

KEPT = Path(__file__).resolve().parents[1] / "docs/measured/equal-care.csv"
COLUMNS = ("objectives", "constant", "value", "seed", "split", "top1")
CONFIDENCE = 0.95


class Student(NamedTuple):
    """One row of the file.

    Args:
        objectives: the set.
        constant: LABEL.OPTION, and its `value`; both empty for labels alone.
        seed: of the run.
        split: `holdout` or `test`.
        top1: in [0, 1].
    """

    objectives: str
    constant: str
    value: str
    seed: int
    split: str
    top1: float


def read_students(file: Path = KEPT) -> list[Student]:
    """Return the students of a file; none where it is not there."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return [
            Student(
                row["objectives"], row["constant"], row["value"], int(row["seed"]), row["split"], float(row["top1"])
            )
            for row in csv.DictReader(lines)
        ]


def keep_students(new: Sequence[Student], file: Path = KEPT) -> None:
    """Write students to a file, in place of all that it has of their sets."""
    replaced = {each.objectives for each in new}
    kept = [each for each in read_students(file) if each.objectives not in replaced]
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted([*kept, *new]))


def significant_difference(scores: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], float]:
    """Return, of every pair of sets, how far their means must lie apart to differ (Tukey and Kramer).

    Args:
        scores: of the seeds of each set. Those of one seed add nothing to the pooled spread.
    """
    freedom = sum(len(values) - 1 for values in scores.values())
    if not freedom:
        return dict.fromkeys(((a, b) for a in scores for b in scores), math.inf)
    squares = sum((len(values) - 1) * np.var(values, ddof=1) for values in scores.values() if len(values) > 1)
    factor = stats.studentized_range.ppf(CONFIDENCE, len(scores), freedom) * math.sqrt(squares / freedom / 2)
    return {(a, b): float(factor * math.sqrt(1 / len(scores[a]) + 1 / len(scores[b]))) for a in scores for b in scores}


def places(scores: Mapping[str, Sequence[float]]) -> dict[str, tuple[int, int]]:
    """Return the first and the last place that each set may have.

    Args:
        scores: of the seeds of each set.
    """
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    least = significant_difference(scores)
    return {
        a: (
            1 + sum(means[b] - means[a] > least[a, b] for b in means if b != a),
            len(means) - sum(means[a] - means[b] > least[a, b] for b in means if b != a),
        )
        for a in means
    }


def table_of(students: Sequence[Student]) -> str:
    """Return the table of all sets that have a score on the test split, as Markdown.

    Args:
        students: of the file.
    """
    scores: dict[str, list[float]] = {}
    for each in students:
        if each.split == "test":
            scores.setdefault(each.objectives, []).append(100 * each.top1)
    of = places(scores) if len(scores) > 1 else dict.fromkeys(scores, (1, 1))
    lines = ["| objectives | seeds | top-1 (%) | place | constant: top-1 on the holdout (%) |"]
    lines.append("| --- | ---: | ---: | ---: | --- |")
    for name, values in sorted(scores.items(), key=lambda pair: -float(np.mean(pair[1]))):
        spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
        place = f"{of[name][0]}" if of[name][0] == of[name][1] else "{} to {}".format(*of[name])
        tries = _tries_of([each for each in students if each.objectives == name])
        lines.append(f"| {name} | {len(values)} | {np.mean(values):.2f}{spread} | {place} | {tries} |")
    return "\n".join(lines) + "\n"


def _tries_of(students: Sequence[Student]) -> str:
    chosen = {each.value for each in students if each.split == "test"}
    tries = sorted((each for each in students if each.split == "holdout"), key=lambda each: float(each.value))
    cells = [f"{each.value}: {100 * each.top1:.2f}" for each in tries]
    cells = [f"**{cell}**" if each.value in chosen else cell for cell, each in zip(cells, tries, strict=True)]
    return f"`{tries[0].constant}` " + ", ".join(cells) if tries else ""
