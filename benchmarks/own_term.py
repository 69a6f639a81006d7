"""What iCD's own term gives beyond its base, with equal weights and seeds, from a sure teacher and a less sure one.

    python benchmarks/own_term.py run --set data.path=cifar100.h5 --weights FOLDER
    python benchmarks/own_term.py table
    python benchmarks/own_term.py keep         # in docs/measured/own-term.csv, and write the table into docs/results.md

`run` works in the folder where `teachers.py` and `equal_care.py` did, or makes the caches of two of its teachers: 5,000
training images, 8 views. For each weight of the base (SDD over the scales 1, 2 and 4) it trains a ResNet-8 without and
with iCD's term, five seeds each, and evaluates them. What is there is kept, and several may run at once, of teachers of
their own. `table` prints, as Markdown, the means, and the mean difference of equal seeds with its 95 % interval
(Student's t): of each weight, and of the means over both, which have the same seeds. `keep` files what there is, in
place of what is there of the same teachers; the table stands in docs/results.md between `<!-- own term -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
from scipy import stats
from teachers import make
from teachers import source_of as teacher_source

from pipeline.experiment.source import ConfigFile
from pipeline.reporting.results import Evaluation

TEACHERS = ("resnet56", "resnet20")
"""Sure of their training images by 98 and by 84 %."""

WEIGHTS = (0.9, 2.7)
"""Of the base: the authors', and the one that was chosen for it alone (equal_care.py)."""

GAMMA = 10.7
"""Of iCD's term, as it was chosen there."""

DOCS = Path(__file__).resolve().parents[1] / "docs"
KEPT = DOCS / "measured/own-term.csv"
BLOCK = re.compile(r"(<!-- own term -->\n)(.*?)(<!-- end -->)", re.DOTALL)

Tops = dict[str, dict[str, dict[int, float]]]
"""Top-1 on the test split, in [0, 1], by teacher, set and seed."""

SEEDS = (0, 1, 2, 3, 4)
CONFIDENCE = 0.95


def runs_of(teacher: str) -> Path:
    """Return the folder of the students of a teacher.

    Args:
        teacher: one of `TEACHERS`.
    """
    return Path(f"artifacts/own-term-{teacher}")


def sets_of() -> dict[str, str]:
    """Return the objective sets by their names: of each weight the base, and iCD's term beside it."""
    sets = {}
    for weight in WEIGHTS:
        base = f"{{name: hard-label, weight: 0.1}}, {{name: sdd, weight: {weight}}}"
        sets[f"base-{weight}"] = f"[{base}]"
        sets[f"icd-{weight}"] = f"[{base}, {{name: icd, gamma: {GAMMA}}}]"
    return sets


def source_of(teacher: str, weights: Path, changes: Sequence[str] = ()) -> ConfigFile:
    """Return the configuration of the students of a teacher.

    Args:
        teacher: one of `TEACHERS`.
        weights: the folder of all weights.
        changes: as of the commands, KEY=VALUE.
    """
    listed = ", ".join(f"{name}: {entries}" for name, entries in sets_of().items())
    own = (f"objectives={{{listed}}}", f"runs={{path: {runs_of(teacher)}, seeds: {list(SEEDS)}}}")
    return teacher_source(teacher, weights, (*own, *changes))


def difference(with_term: Mapping[int, float], without: Mapping[int, float]) -> list[float]:
    """Return what the term adds, seed by seed.

    Args:
        with_term, without: top-1 by the seed.
    """
    return [with_term[seed] - without[seed] for seed in sorted(with_term.keys() & without.keys())]


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its interval (Student's t).

    Args:
        differences: two or more.
    """
    error = float(np.std(differences, ddof=1)) / len(differences) ** 0.5
    return float(np.mean(differences)), float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1)) * error


def table_of(tops: Mapping[str, Mapping[str, Mapping[int, float]]]) -> str:
    """Return the table.

    Args:
        tops: top-1 in [0, 1] by teacher, set and seed.
    """
    lines = [
        "| teacher | weight of the base | base | with iCD's term | difference |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for teacher, sets in tops.items():
        known = sorted(set(SEEDS).intersection(*sets.values()))  # seeds that all four rows have
        for weight in WEIGHTS:
            base, term = sets[f"base-{weight}"], sets[f"icd-{weight}"]
            found = difference(term, base)
            cells = [_mean(list(base.values())), _mean(list(term.values())), _signed(*interval(found))]
            lines.append(f"| {teacher} | {weight} | {' | '.join(cells)} |")
        both = [sum(sets[f"icd-{w}"][seed] - sets[f"base-{w}"][seed] for w in WEIGHTS) / len(WEIGHTS) for seed in known]
        lines.append(f"| {teacher} | both |  |  | {_signed(*interval(both))} |")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> str:
    return f"{100 * np.mean(values):.2f} ± {100 * np.std(values, ddof=1):.2f}"


def _signed(mean: float, half: float) -> str:
    return f"{100 * mean:+.2f} ± {100 * half:.2f}"


@click.group()
def main() -> None:
    """Compare iCD with its base alone."""


@main.command()
@click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")
@click.option("--weights", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder of all.")
@click.option("--teacher", "names", multiple=True, type=click.Choice(TEACHERS), help="Default: both.")
def run(changes: Sequence[str], weights: Path, names: Sequence[str]) -> None:
    """Make the caches, train the students, evaluate them."""
    for name in names or TEACHERS:
        make(source_of(name, weights, changes), sets_of(), SEEDS)


def found() -> Tops:
    """Return what there is of the teachers whose students are evaluated."""
    tops: Tops = {}
    for name in TEACHERS:
        if (file := runs_of(name) / "evaluation.json").exists():
            students = Evaluation.read(file).students
            tops[name] = {
                each: {s.seed: s.metrics.top1 or 0.0 for s in students if s.objectives == each} for each in sets_of()
            }
    return tops


def kept(file: Path = KEPT) -> Tops:
    """Return what is filed.

    Args:
        file: of comma-separated values.
    """
    tops: Tops = {}
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            seeds = tops.setdefault(row["teacher"], {}).setdefault(row["objectives"], {})
            seeds[int(row["seed"])] = float(row["top1"])
    return tops


@main.command()
def table() -> None:
    """Print what there is of the teachers whose students are evaluated."""
    print(table_of(found()))


@main.command()
def keep() -> None:
    """File what there is, and write the table of all that is filed."""
    tops = {**(kept() if KEPT.exists() else {}), **found()}
    with KEPT.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("teacher", "objectives", "seed", "top1"))
        for teacher, sets in tops.items():
            writer.writerows(
                (teacher, name, seed, top1) for name, tries in sets.items() for seed, top1 in tries.items()
            )
    page = DOCS / "results.md"
    page.write_text(BLOCK.sub(lambda match: f"{match[1]}{table_of(tops)}\n{match[3]}", page.read_text()))


if __name__ == "__main__":
    main()
