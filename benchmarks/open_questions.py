"""Why OFA and CRCD end below hard labels in a ViT: weights, a temperature and exits, from the cache of equal_care.py.

    python benchmarks/open_questions.py run --set data.path=cifar100.h5 --set teacher.weights=FILE [--objectives NAME]
    python benchmarks/open_questions.py keep       # in docs/measured/, and write the table into docs/results.md

`run` works in the folder where `equal_care.py` did, or makes its cache: 5,000 training images and 2,000 that are held
out. It trains a ViT as `configs/cifar100-vit.yaml` has it, but half as wide and with four blocks, so that a set takes
minutes: 12 epochs, one seed, with each set of `SETS`, which differs from the file's in one thing. What is there is
kept, so it may be stopped and begun again, and several may run at once with sets of their own. `keep` files
the holdout's top-1 of all that are trained, and what their losses were in the first epoch and in the last, in place of
what is there of the same sets; the table stands in docs/results.md between `<!-- open questions -->` and
`<!-- end -->`.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
from equal_care import FIXED

from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.yaml_text import read_config
from stages import cache_teacher, train_student

CONFIG = Path(__file__).resolve().parents[1] / "configs/cifar100-vit.yaml"
DOCS = CONFIG.parents[1] / "docs"
KEPT, RESULTS = DOCS / "measured/open-questions.csv", DOCS / "results.md"
BLOCK = re.compile(r"(<!-- open questions -->\n)(.*?)(<!-- end -->)", re.DOTALL)
RUNS, STUDENT, SEED = Path("artifacts/open-questions"), "vit", 0
SMALLER = "students.vit.options={img_size: 32, patch_size: 4, depth: 4, embed_dim: 96, num_heads: 3, global_pool: avg}"


class Row(NamedTuple):
    """One row of the file.

    Args:
        objectives: the set.
        top1: on the holdout, in [0, 1].
        first, last: losses of the first epoch and of the last, by their terms, unweighted.
    """

    objectives: str
    top1: float
    first: str
    last: str


def changed(name: str, **options: Any) -> list[dict[str, Any]]:
    """Return a set of the file, with other options of the objective that it is named for.

    Args:
        name: of the set, and of the objective.
        options: these.
    """
    entries = read_config(CONFIG)["objectives"][name]
    return [{**each, **(options if each["name"] == name else {})} for each in entries]


SETS: dict[str, list[dict[str, Any]]] = {
    "hard-cached": [{"name": "hard-label"}],
    "kd": changed("kd"),
    "ofa": changed("ofa"),
    "ofa-weight-0.3": changed("ofa", weight=0.3),
    "ofa-weight-0.1": changed("ofa", weight=0.1),
    "ofa-temperature-4": changed("ofa", temperature=4.0),
    "ofa-last-exit": changed("ofa", blocks=["block4"]),
    "ofa-no-exits": changed("ofa", blocks=[]),
    "crcd": changed("crcd"),
    "crcd-momentum": changed("crcd", bank="momentum"),
    "crcd-weight-0.1": changed("crcd", weight=0.1),
    "crcd-weight-0.01": changed("crcd", weight=0.01),
}


def source_of(changes: Sequence[str] = ()) -> ConfigFile:
    """Return the configuration of all sets.

    Args:
        changes: as of the commands, KEY=VALUE.
    """
    return ConfigFile(CONFIG, (*FIXED, SMALLER, f"objectives={json.dumps(SETS)}", f"runs.path={RUNS}", *changes))


@click.group()
def main() -> None:
    """Answer what the first table left open."""


@main.command()
@click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")
@click.option("--objectives", "names", multiple=True, type=click.Choice(list(SETS)), help="Default: all.")
def run(changes: Sequence[str], names: Sequence[str]) -> None:
    """Make what is missing: the cache, and a student of each set."""
    here = source_of(changes)
    cache_teacher.run(here, replace=False, wait=True)
    for name in names or SETS:
        train_student.run(here, RunName(STUDENT, name, SEED), verify="sample", replace=False, wait=True)


@main.command()
def keep() -> None:
    """File what there is, and write the table of it."""
    folders = {name: RUNS / "students" / STUDENT / name / f"seed-{SEED}" for name in SETS}
    found = {name: row_of(name, folder) for name, folder in folders.items() if (folder / "metrics.json").exists()}
    rows = {**(kept() if KEPT.exists() else {}), **found}
    with KEPT.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows[name] for name in SETS if name in rows)
    page = RESULTS.read_text()
    if BLOCK.search(page) is None:
        raise click.ClickException(f"{RESULTS}: no <!-- open questions --> for the table")
    RESULTS.write_text(BLOCK.sub(lambda match: match[1] + table_of(list(kept().values())) + match[3], page))


def row_of(name: str, folder: Path) -> Row:
    """Return what is kept of a student.

    Args:
        name: of its set.
        folder: of its run.
    """
    top1 = json.loads((folder / "metrics.json").read_text())["holdout"]["top1"]
    with (folder / "history.csv").open() as file:
        first, *_, last = csv.DictReader(file)
    terms = [term for term in first if "/" in term]
    losses = (" ".join(f"{term} {float(each[term]):.3g}" for term in terms if each[term]) for each in (first, last))
    return Row(name, top1, *losses)


def kept(file: Path = KEPT) -> dict[str, Row]:
    """Return what is filed, by the set.

    Args:
        file: of comma-separated values.
    """
    with file.open(newline="") as lines:
        return {row["objectives"]: Row(**{**row, "top1": float(row["top1"])}) for row in csv.DictReader(lines)}


def table_of(rows: Sequence[Row]) -> str:
    """Return the table.

    Args:
        rows: of the sets.
    """
    lines = [
        "| objectives | holdout, top-1 (%) | losses of the first epoch (nats) | of the last |",
        "| --- | ---: | --- | --- |",
    ]
    for row in rows:
        first, last = (
            re.sub(r"(\S+) (\S+)( |$)", r"`\1` \2,\3", losses).rstrip(",") for losses in (row.first, row.last)
        )
        lines.append(f"| {row.objectives} | {100 * row.top1:.2f} | {first} | {last} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
