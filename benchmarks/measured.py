"""What students were measured to know, kept in `docs/measured/`, and the tables that the documentation makes of it.

    python benchmarks/measured.py add EVALUATION ...   # evaluation.json of `pipeline evaluate`, or files made of it
    python benchmarks/measured.py add EVALUATION --part int8   # of an experiment in parts: EXPERIMENT is `grocery.int8`
    python benchmarks/measured.py chosen RUNS          # of the students in the folder `runs.path`, their holdout
    python benchmarks/measured.py tables               # write the tables again
    python benchmarks/measured.py order                # how the order of methods agrees with the published one

`add` files students under the name of their experiment, in place of those of the same student, objectives and seed
that are there; what was measured of speed is left out, for it is the machine's. A table stands in `docs/*.md` between
`<!-- measured: EXPERIMENT [STUDENT] -->` and `<!-- end -->`, best first. After `<!-- students: EXPERIMENT -->` it has
top-1 alone, with a column for every student, and the sets by the mean of their differences from hard labels, best
first, then those that some student does not have. In `docs/methods.md` the last column is what
was measured in the experiment `cifar100-methods`. `chosen` files what runs say of their holdout, in place of all that
is there; its table stands after `<!-- chosen: EXPERIMENT -->`, with a row for every method, whose sets are named
METHOD-CONSTANT. `order` compares the last two columns of `docs/methods.md` by ranks (Spearman's rho): all published
figures that are of one pair and one length of training, those of each section, and those of each source.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from pipeline.files import write_atomic
from pipeline.reporting.results import Evaluation, RunMetrics, StudentResult
from pipeline.reporting.summary import SummaryRow, summarise
from pipeline.reporting.tables import stat

DOCS = Path(__file__).resolve().parents[1] / "docs"
METHODS = "cifar100-methods"
SETS = {"hard-label": "hard-cached"}
"""The objective set that stands for a method; of the others, the one of its name."""
COLUMNS = ("objectives", "seeds", "top-1 (%)", "agreement (%)", "KL (nats)", "ECE (%)")
BLOCK = re.compile(r"(<!-- measured: (\S+)(?: (\S+))? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
STUDENTS = re.compile(r"(<!-- students: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
HOLDOUT = ("student", "objectives", "seed", "top1")
CHOSEN = re.compile(r"(<!-- chosen: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
METHOD = re.compile(r"^(\| `([\w-]+)` (?:\|[^|]*){5}\|)[^|]*\|$", re.MULTILINE)
"""A row of seven cells."""
BOTH = re.compile(r"^\| `([\w-]+)` (?:\|[^|]*){4}\| (\d+\.\d+) (\w) \| (\d+\.\d+)[^|]*\|$")
"""A row with a published figure, without conditions, its source and a measured one."""
FEW = 5
"""Methods of which an order says nothing."""


@click.group()
def main() -> None:
    """Keep what was measured, and make tables of it."""


@main.command()
@click.argument("evaluations", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--part", help="Of an experiment whose parts have students of the same names: files EXPERIMENT.PART.")
def add(evaluations: Sequence[Path], part: str | None) -> None:
    """File the students of EVALUATIONS."""
    for path in evaluations:
        new = Evaluation.read(path)
        new = new.model_copy(update={"experiment": f"{new.experiment}.{part}"}) if part else new
        kept = DOCS / "measured" / f"{new.experiment}.json"
        write_atomic(kept, merged(Evaluation.read(kept) if kept.exists() else None, new).to_text())
        print(f"{kept.name}: {len(new.students)} students of {path}")


@main.command()
@click.argument("runs", type=click.Path(exists=True, file_okay=False, path_type=Path))
def chosen(runs: Path) -> None:
    """File the top-1 that the runs in RUNS had on their holdout at the end."""
    found = [RunMetrics.read(path) for path in sorted(runs.glob("students/*/*/seed-*/metrics.json"))]
    rows = [(run.student, run.objectives, str(run.seed), f"{run.holdout.top1}") for run in found if run.holdout]
    text = "\n".join(",".join(row) for row in [HOLDOUT, *rows]) + "\n"
    write_atomic(DOCS / "measured" / f"{runs.name}.csv", text)
    print(f"{runs.name}.csv: {len(rows)} students")


@main.command()
def tables() -> None:
    """Write the tables of every page again."""
    for page in sorted(DOCS.glob("*.md")):
        page.write_text(with_tables(page.read_text(), page.name))


@main.command()
def order() -> None:
    """Compare the order of methods with the published one."""
    rows = compared((DOCS / "methods.md").read_text())
    places = zip(ranks([row.published for row in rows]), ranks([row.measured for row in rows]), rows, strict=True)
    for published, measured, row in sorted(places):
        print(
            f"{published:5.1f} {measured:5.1f}  {row.method:<12} {row.published:.2f} {row.source}  {row.measured:.2f}"
        )
    groups = {"all": rows}
    for row in rows:
        groups.setdefault(row.section, []).append(row)
        groups.setdefault(f"source {row.source}", []).append(row)
    for name, group in groups.items():
        if name == "all" or len(group) >= FEW:
            agree = np.corrcoef(ranks([row.published for row in group]), ranks([row.measured for row in group]))[0, 1]
            print(f"{name}: Spearman's rho of {len(group)} methods {agree:.2f}")


class Compared(NamedTuple):
    """A method's published and measured top-1, in percent."""

    method: str
    published: float
    source: str
    measured: float
    section: str


def compared(text: str) -> list[Compared]:
    """The rows of `docs/methods.md` that have both."""
    rows, section = [], ""
    for line in text.splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        if found := BOTH.match(line):
            rows.append(Compared(found[1], float(found[2]), found[3], float(found[4]), section))
    return rows


def ranks(values: Sequence[float]) -> list[float]:
    """Of every value its place, the largest first; equal ones share the mean of theirs."""
    return [
        (sum(other > value for other in values) + sum(other >= value for other in values) + 1) / 2 for value in values
    ]


def merged(old: Evaluation | None, new: Evaluation) -> Evaluation:
    """Both, the new in place of the old, ordered by student, objectives and seed."""

    def key(student: StudentResult) -> tuple[str, str, int]:
        return student.student, student.objectives, student.seed

    if old and old.split != new.split:
        raise click.ClickException(f"{new.experiment} was measured on {old.split!r}, and now on {new.split!r}")
    silent = {"images_per_second": None, "train_seconds": None}
    students = {key(each): each for each in old.students} if old else {}
    students |= {key(each): each.model_copy(update=silent) for each in new.students}
    teacher = new.teacher and new.teacher.model_copy(update={"images_per_second": None})
    ordered = tuple(students[name] for name in sorted(students))
    return new.model_copy(update={"students": ordered, "teacher": teacher or (old and old.teacher)})


def with_tables(text: str, page: str) -> str:
    """The page with its tables as they are by what was measured."""
    text = BLOCK.sub(lambda found: found[1] + table(rows_of(found[2]), found[3]) + found[5], text)
    text = STUDENTS.sub(lambda found: found[1] + table_of_students(rows_of(found[2])) + found[4], text)
    text = CHOSEN.sub(lambda found: found[1] + table_of_constants(found[2]) + found[4], text)
    if page == "methods.md":
        known = {row.objectives: row for row in rows_of(METHODS)}
        text = METHOD.sub(lambda found: f"{found[1]} {top1(known.get(SETS.get(found[2], found[2])))} |", text)
    return text


def rows_of(experiment: str) -> list[SummaryRow]:
    """A row for every student and objective set of the experiment; none if nothing was measured."""
    kept = DOCS / "measured" / f"{experiment}.json"
    return summarise(Evaluation.read(kept)) if kept.exists() else []


def table(rows: Sequence[SummaryRow], student: str | None) -> str:
    """The rows of one student, or of all, the most accurate first, in Markdown."""
    chosen = sorted((row for row in rows if student in (None, row.student)), key=lambda row: -row.score.mean)
    lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
    for row in chosen:
        scores = [stat(row.score, 100), stat(row.agreement, 100), stat(row.kl, 1, 3), stat(row.ece, 100)]
        lines.append("| " + " | ".join([row.objectives, str(row.seeds), *scores]) + " |")
    return "\n".join(lines) + "\n"


def table_of_students(rows: Sequence[SummaryRow]) -> str:
    """Top-1 in percent: a column for every student, the sets by what they gain over hard labels, in Markdown."""
    found = {(row.objectives, row.student): row for row in rows}
    sets, students = ({key[place]: None for key in found} for place in (0, 1))
    base = SETS["hard-label"]
    pairs = {name: [(found.get((name, each)), found.get((base, each))) for each in students] for name in sets}
    gains = {
        name: [100 * (row.score.mean - labels.score.mean) for row, labels in of if row and labels]
        for name, of in pairs.items()
    }
    mean = {name: float(np.mean(of)) if len(of) == len(students) else -math.inf for name, of in gains.items()}
    lines = [
        "| objectives | " + " | ".join([*students, "mean gain"]) + " |",
        "| --- |" + " ---: |" * (len(students) + 1),
    ]
    for name in sorted(sets, key=lambda name: -mean[name]):
        cells = [top1(found.get((name, each))) for each in students]
        gain = f"{mean[name]:+.2f}" if name != base and mean[name] > -math.inf else ""
        lines.append(f"| {name} | " + " | ".join([*cells, gain]) + " |")
    return "\n".join(lines) + "\n"


def table_of_constants(experiment: str) -> str:
    """Of every method its constants, ascending, with the top-1 on the holdout in percent; the best one bold."""
    kept = DOCS / "measured" / f"{experiment}.csv"
    found: dict[str, dict[float, float]] = {}
    for row in csv.DictReader(kept.read_text().splitlines()) if kept.exists() else ():
        method, _, constant = row["objectives"].rpartition("-")
        found.setdefault(method, {})[float(constant)] = float(row["top1"])
    lines = ["| method | constant: top-1 on the holdout (%) |", "| --- | --- |"]
    for method, of in found.items():
        cells = {constant: f"{constant:g}: {100 * share:.2f}" for constant, share in sorted(of.items())}
        best = max(of, key=lambda constant: of[constant])
        lines.append(f"| {method} | " + ", ".join(f"**{c}**" if k == best else c for k, c in cells.items()) + " |")
    return "\n".join(lines) + "\n"


def top1(row: SummaryRow | None) -> str:
    """In percent, or a dash for what was not measured."""
    return stat(row.score, 100) if row else "-"


if __name__ == "__main__":
    main()
