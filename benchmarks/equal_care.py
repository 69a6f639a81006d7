"""Every method with the same care: five weights each are tried on a holdout, and the best is trained with three seeds.

    python benchmarks/equal_care.py run --set data.path=cifar100.h5 --set teacher.weights=FILE [--objectives NAME ...]
    python benchmarks/equal_care.py score --set data.path=cifar100.h5 --set teacher.weights=FILE [--objectives NAME ...]
    python benchmarks/equal_care.py keep       # in docs/measured/, and write the table into docs/results.md

Sets and weights are those of `configs/cifar100-methods.yaml`; of each set one constant varies (`constant_of`), from a
ninth of what the file has to nine times it. `run` works in the current folder: it makes one cache of 7,000 training
images, of which 2,000 are held out, and for each set five students of seed 0, as `pipeline sweep --no-stop` does. The
one that is best on the holdout is the first of three; two more of other seeds follow, and see no other images. What is
there is kept, so it may be stopped and begun again, and several may run at once with sets of their own. `score`
evaluates on the test split all sets that are finished, and `keep` files them in `docs/measured/equal-care.csv`, in
place of what is there of the same sets: several machines may share the work. `equal_care_table.py` says how the table
is made, which stands in docs/results.md between `<!-- equal care -->` and `<!-- end -->`: the chosen constant is bold.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from equal_care_table import Student, keep_students, read_students, table_of

from pipeline.commands import sweep
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.reporting.results import Evaluation
from pipeline.sweeping.sweep import RESULT
from pipeline.yaml_text import read_config
from stages import cache_teacher, evaluate, train_student

CONFIG = Path(__file__).resolve().parents[1] / "configs/cifar100-methods.yaml"
RUNS = Path("artifacts/equal-care")
RESULTS = CONFIG.parents[1] / "docs/results.md"
BLOCK = re.compile(r"(<!-- equal care -->\n)(.*?)(<!-- end -->)", re.DOTALL)
STUDENT, SEEDS = "resnet8", (0, 1, 2)

FACTORS = (1 / 9, 1 / 3, 1.0, 3.0, 9.0)
"""Of the constant of the file."""

OWN_CONSTANTS = {"icd": "gamma", "lift": "feature_weight", "ft": "transfer_weight"}
"""Options that say what a method counts, where its weight does not, or does more: FT's would change its paraphraser."""

FIXED = (
    "data.limit=7000",
    "data.holdout={count: 2000}",
    "teacher_training=null",
    "teacher.precision=float32",
    "store.path=artifacts/caches/equal-care.zarr",
)


def constant_of(entries: Any) -> tuple[str, float] | None:
    """Return what varies of a set: the key, of the last objective that is no label, and its value; None for labels.

    Args:
        entries: of the set, as the file has them.
    """
    listed = entries["objectives"] if isinstance(entries, Mapping) else entries
    others = [entry for entry in listed if entry["name"] != "hard-label"]
    if not others:
        return None
    last = others[-1]
    option = OWN_CONSTANTS.get(last["name"], "weight")
    default = 0.2 if option == "feature_weight" else 1.0
    return f"{last.get('label', last['name'])}.{option}", float(last.get(option, default))


def values_of(constant: float) -> list[float]:
    """Return the values that are tried, of three digits."""
    return [float(f"{constant * factor:.3g}") for factor in FACTORS]


def with_constant(entries: Sequence[Mapping[str, Any]], key: str, value: float) -> list[dict[str, Any]]:
    """Return the entries of a set with another constant.

    Args:
        entries: of the set.
        key: LABEL.OPTION.
        value: of the constant.
    """
    label, option = key.split(".")
    return [{**each, **({option: value} if each.get("label", each["name"]) == label else {})} for each in entries]


def source_of(changes: Sequence[str]) -> ConfigFile:
    """Return the configuration of all sets, with their own weights."""
    return ConfigFile(CONFIG, (*FIXED, f"runs.path={RUNS}", *changes))


def chosen(name: str, entries: Any) -> Any:
    """Return a set with the constants that were chosen; as it is as long as none are."""
    file = RUNS / "sweeps" / STUDENT / name / "seed-0" / RESULT
    best = json.loads(file.read_text())["chosen"] if file.exists() else None
    for key, value in best["values"].items() if best else ():
        entries = with_constant(entries, key, value)
    return entries


@click.group()
def main() -> None:
    """Compare methods with equal care."""


changes_option = click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")


@main.command()
@changes_option
@click.option("--objectives", "names", multiple=True, help="Default: all of the configuration.")
def run(changes: Sequence[str], names: Sequence[str]) -> None:
    """Make what is missing: the cache, five students of each set, and two more of the best."""
    here, sets = source_of(changes), read_config(CONFIG)["objectives"]
    cache_teacher.run(here, replace=False, wait=True)
    for name in names or sets:
        students, varies = RUNS / "students" / STUDENT / name, constant_of(sets[name])
        if varies is not None:
            key, constant = varies
            listed = ",".join(f"{value:g}" for value in values_of(constant))
            facts = sweep.run(here, RunName(STUDENT, name, 0), [f"{key}={listed}"], stops=False, verify="sample")
            if not (students / "seed-0").exists():
                half = students / f".{os.getpid()}.partial"  # a copy that is interrupted is no student
                shutil.copytree(facts["chosen"]["folder"], half)
                half.rename(students / "seed-0")
        changed = f"objectives.{name}={json.dumps(chosen(name, sets[name]))}"
        for seed in SEEDS:
            once_more = ConfigFile(CONFIG, (*here.overrides, changed))
            train_student.run(once_more, RunName(STUDENT, name, seed), verify="sample", replace=False, wait=True)


@main.command()
@changes_option
@click.option("--objectives", "names", multiple=True, help="Default: all that are finished.")
def score(changes: Sequence[str], names: Sequence[str]) -> None:
    """Evaluate on the test split the sets that have all their students."""
    here, sets = source_of(changes), read_config(CONFIG)["objectives"]
    folder = RUNS / "students" / STUDENT
    there = (name for name in names or sets if all((folder / name / f"seed-{seed}").exists() for seed in SEEDS))
    trained = json.dumps({name: chosen(name, sets[name]) for name in there})
    evaluate.run(ConfigFile(CONFIG, (*here.overrides, f"objectives={trained}", f"runs.seeds={list(SEEDS)}")))


@main.command()
def keep() -> None:
    """File the scores that there are, and write the table of all that is filed."""
    sets, found = read_config(CONFIG)["objectives"], list[Student]()
    scored = [each for each in Evaluation.read(RUNS / "evaluation.json").students if each.metrics.top1 is not None]
    for name in {each.objectives: None for each in scored}:
        tests = {each.seed: each.metrics.top1 for each in scored if each.objectives == name}
        found += students_of(name, sets[name], {seed: top1 for seed, top1 in tests.items() if top1 is not None})
    keep_students(found)
    RESULTS.write_text(with_table(RESULTS.read_text()))


def students_of(name: str, entries: Any, tests: Mapping[int, float]) -> list[Student]:
    """Return what there is of a set: the tries of its constant that ended with a score, and its seeds.

    Args:
        name: of the set.
        entries: as the file has them.
        tests: top-1 on the test split, by the seed.
    """
    if (varies := constant_of(entries)) is None:
        return [Student(name, "", "", seed, "test", top1) for seed, top1 in tests.items()]
    key, _ = varies
    facts = json.loads((RUNS / "sweeps" / STUDENT / name / "seed-0" / RESULT).read_text())
    tried = {f"{one['values'][key]:g}": one["score"] for one in facts["tries"] if one["score"] is not None}
    chosen = f"{facts['chosen']['values'][key]:g}"
    tries = [Student(name, key, value, facts["seed"], "holdout", score) for value, score in tried.items()]
    return tries + [Student(name, key, chosen, seed, "test", top1) for seed, top1 in tests.items()]


def with_table(page: str) -> str:
    """Return a page with the table of what is filed between its marks.

    Args:
        page: Markdown.
    """
    return BLOCK.sub(lambda match: match[1] + table_of(read_students()) + match[3], page)


if __name__ == "__main__":
    main()
