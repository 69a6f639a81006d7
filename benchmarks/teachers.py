"""What a cache says of its teacher, beside how good students become: four published ResNets of CIFAR-100.

    python benchmarks/teachers.py run --set data.path=cifar100.h5 --weights FOLDER
    python benchmarks/teachers.py table

`run` makes, in the working directory and for each teacher, a cache of 7,000 training images and 8 views as
`equal_care.py` does, and trains its ResNet-8 with the constants that were chosen there for KD and LFCC, three seeds
each; then it evaluates them. FOLDER has `cifar100_resnet20.safetensors` and so on. What is there is kept, and several
may run at once, of teachers of their own. `table` prints, as Markdown, what `pipeline inspect` says of each cache, the
students' top-1 on the test images, and Spearman's rank correlation of both: of so few teachers of one family, a hint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from equal_care import CONFIG, FIXED, SEEDS, STUDENT
from scipy.stats import spearmanr

from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.measuring.teacher_worth import open_for_worth, teacher_worth
from pipeline.reporting.results import Evaluation
from stages import cache_teacher, evaluate, train_student

TEACHERS = ("resnet20", "resnet32", "resnet44", "resnet56")
KD = "{name: hard-label, weight: 0.1}, {name: kd, weight: 8.1, temperature: 4}"
LFCC = "{name: hard-label, weight: 0.1}, {name: kd, weight: 0.9, temperature: 4}, {name: lfcc, weight: 30}"
SETS = ("kd", "lfcc")
NUMBERS = ("accuracy", "ratio_logits", "ratio_softmax", "margin", "entropy", "confidence", "ece", "rank")
"""What is compared of `TeacherWorth`."""


def cache_of(teacher: str) -> Path:
    """Return the cache of a teacher.

    Args:
        teacher: one of `TEACHERS`.
    """
    return Path(f"artifacts/caches/teachers-{teacher}.zarr")


def runs_of(teacher: str) -> Path:
    """Return the folder of its students.

    Args:
        teacher: one of `TEACHERS`.
    """
    return Path(f"artifacts/teachers-{teacher}")


def source_of(teacher: str, weights: Path, changes: Sequence[str] = ()) -> ConfigFile:
    """Return the configuration of the students of a teacher.

    Args:
        teacher: one of `TEACHERS`.
        weights: the folder of all weights.
        changes: as of the commands, KEY=VALUE.
    """
    own = (
        f"teacher.model=cifar_{teacher}",
        f"teacher.weights={weights / f'cifar100_{teacher}.safetensors'}",
        f"store.path={cache_of(teacher)}",
        f"runs={{path: {runs_of(teacher)}, seeds: {list(SEEDS)}}}",
        f"objectives={{kd: [{KD}], lfcc: [{LFCC}]}}",
    )
    return ConfigFile(CONFIG, (*FIXED, *own, *changes))


def make(source: ConfigFile, sets: Iterable[str], seeds: Sequence[int]) -> None:
    """Make what is missing: the cache, a student of each set and seed, and the scores.

    Args:
        source: the configuration.
        sets: of objectives.
        seeds: of the students.
    """
    cache_teacher.run(source, replace=False, wait=True)
    for seed, objectives in product(seeds, sets):
        train_student.run(source, RunName(STUDENT, objectives, seed), verify="sample", replace=False, wait=True)
    evaluate.run(source)


class Taught(NamedTuple):
    """Holds what is known of a teacher and of its students.

    Args:
        worth: what its cache says, by the names in `NUMBERS`.
        top1: of the students of each set on the test images, in [0, 1], a number for each seed.
    """

    worth: Mapping[str, float]
    top1: Mapping[str, Sequence[float]]


def table_of(teachers: Mapping[str, Taught]) -> str:
    """Return the table, with the correlations in its last rows.

    Args:
        teachers: by name, two or more.
    """
    columns = {number: [each.worth[number] for each in teachers.values()] for number in NUMBERS}
    means = {name: [float(np.mean(each.top1[name])) for each in teachers.values()] for name in SETS}
    lines = [f"| teacher | {' | '.join((*NUMBERS, *SETS))} |", f"| --- |{' ---: |' * (len(NUMBERS) + len(SETS))}"]
    for teacher, each in teachers.items():
        said = [f"{each.worth[number]:.4g}" for number in NUMBERS]
        tops = [f"{100 * np.mean(each.top1[name]):.2f} ± {100 * np.std(each.top1[name], ddof=1):.2f}" for name in SETS]
        lines.append(f"| {teacher} | {' | '.join((*said, *tops))} |")
    for name in SETS:
        ranked = [f"{spearmanr(columns[number], means[name]).statistic:.2f}" for number in NUMBERS]
        lines.append(f"| rank correlation with {name} | {' | '.join(ranked)} |{' |' * len(SETS)}")
    return "\n".join(lines)


@click.group()
def main() -> None:
    """Compare teachers by what their caches say and by their students."""


@main.command()
@click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")
@click.option("--weights", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder of all.")
@click.option("--teacher", "names", multiple=True, type=click.Choice(TEACHERS), help="Default: all.")
def run(changes: Sequence[str], weights: Path, names: Sequence[str]) -> None:
    """Make the caches, train the students, evaluate them."""
    for name in names or TEACHERS:
        make(source_of(name, weights, changes), SETS, SEEDS)


@main.command()
def table() -> None:
    """Print what there is of all teachers."""
    found: dict[str, Taught] = {}
    for name in TEACHERS:
        worth = teacher_worth(open_for_worth(cache_of(name)), whole=True)
        assert worth is not None
        students = Evaluation.read(runs_of(name) / "evaluation.json").students
        tops = {each: [s.metrics.top1 or 0.0 for s in students if s.objectives == each] for each in SETS}
        found[name] = Taught({number: float(getattr(worth, number)) for number in NUMBERS}, tops)
    print(table_of(found))


if __name__ == "__main__":
    main()
