"""What distillation gives on 2,640 real photographs, and four questions of engineers about it.

    python benchmarks/grocery.py run --part methods --student mobile     # and the other parts and students
    python benchmarks/grocery.py table

It works in the current folder, where `photos/` has the unpacked photographs and `weights/` the ImageNet weights
(docs/photos.md says which). `run` packs, trains the teachers, makes the caches, trains the students of
`configs/grocery.yaml`, and evaluates them, a part after the other. What is there is kept, so it may be stopped and
begun again, and several may run at once, each with students of its own. `options` prints what a part changes in the
configuration, for `pipeline check` and others. `table` prints what is evaluated by then as Markdown.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import click
import numpy as np
from grocery_halves import HALF, LABELED, write_halves

from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.reporting.results import Evaluation
from pipeline.yaml_text import read_config
from stages import cache_teacher, evaluate, prepare_data, train_student, train_teacher

CONFIG = Path(__file__).resolve().parents[1] / "configs/grocery.yaml"
RUNS = Path("artifacts/grocery")

FREE = ("kd-alone", "kd-rsd", "kd-queue-kl", "kd-coss", "kd-cos-smoothl1")
"""Objective sets that read no label."""

BOTH = "caches=[{path: artifacts/caches/grocery.zarr}, {path: artifacts/caches/lite1.zarr, role: mean-probabilities}]"
HALF_TEACHER = "teacher.weights=artifacts/teachers/grocery-labeled/teacher.safetensors"
ALONE = (
    "objectives={rsd: [{name: rsd, weight: 0.1}], queue-kl: [{name: queue-kl, queue: 2048}], "
    "coss: [{name: coss, neighbours: 3, nearest: 10, weight: 70}], "
    "cos-smoothl1: [{name: cos-smoothl1, standardise: channels}]}"
)
VIEWS_176 = (
    "views.operations=[{name: resized-crop, size: 176, scale: [0.35, 1.0]}, {name: horizontal-flip}, "
    "{name: randaugment, num_ops: 1, magnitude: 9, fill: 124}]"
)


@dataclass(frozen=True)
class Part:
    """Says what a part changes in the configuration, and what of it is made.

    Args:
        question: that it answers.
        changes: overrides of the configuration.
        students: that are trained.
        objectives: sets that they learn with; none means all of the configuration.
        caches: whether the part makes a cache of its own.
        trains: whether it has a teacher to train; else its teacher is one that another part trains.
        needs: parts whose teachers and caches it uses.
    """

    question: str
    changes: tuple[str, ...] = ()
    students: tuple[str, ...] = ("mobile",)
    objectives: tuple[str, ...] = ()
    caches: bool = True
    trains: bool = True
    needs: tuple[str, ...] = ()


PARTS = {
    "methods": Part("Which method, for which student?", students=("mobile", "resnet", "vit")),
    "embedding": Part(
        "What is learnt from the embedding alone, without labels and logits? (kNN)",
        ("students.mobile.head=none", "evaluate.labels_from=train", ALONE),
        caches=False,
        needs=("methods",),
    ),
    "labeled": Part(
        "Half of the photographs have labels. What is learnt from these photographs alone?",
        (
            f"data.path={LABELED}",
            "data.source=null",
            HALF_TEACHER,
            "teacher_training.epochs=16",  # as many steps as with all photographs
            "store.path=artifacts/caches/grocery-labeled.zarr",
            "students.mobile.train.epochs=80",
        ),
        objectives=("hard", "kd", "lfcc", "rsd", "kd-alone"),
    ),
    "half": Part(
        "What do the photographs without labels add? The teacher is that of the labeled ones.",
        (
            f"data.path={HALF}",
            "data.source=null",
            HALF_TEACHER,
            "store.path=artifacts/caches/grocery-half.zarr",
        ),
        objectives=("kd", "lfcc", "rsd", *FREE),
        trains=False,
        needs=("labeled",),
    ),
    "small": Part(
        "What does a student give away that sees 96 pixels, where its teacher sees 128?",
        ("students.mobile.input_size=96",),
        objectives=("hard", "kd", "lfcc", "rsd"),
        caches=False,
        needs=("methods",),
    ),
    "large-teacher": Part(
        "Does a teacher that sees 176 pixels help a student that sees 96?",
        (
            "teacher.weights=artifacts/teachers/grocery-176/teacher.safetensors",
            "teacher.input_size=176",
            "teacher_training.epochs=3",
            VIEWS_176,
            "evaluate.operations=[{name: resize, size: 176}, {name: center-crop, size: 176}]",
            "store.path=artifacts/caches/grocery-176.zarr",
            "students.mobile.input_size=96",
        ),
        objectives=("hard", "kd", "lfcc", "rsd"),
    ),
    "int8": Part(
        "Is a cache of 8 bits enough?",
        (
            "signals.logits.encoding=int8",
            "signals.embedding.encoding=int8",
            "signals.features.encoding=int8",
            "store.path=artifacts/caches/grocery-int8.zarr",
        ),
        objectives=("kd", "sdd-icd", "lfcc", "rsd"),
        needs=("methods",),
    ),
    "lite1": Part(
        "What does a second teacher teach, EfficientNet-Lite1?",
        (
            "teacher.model=tf_efficientnet_lite1",
            "teacher.weights=artifacts/teachers/grocery-lite1/teacher.safetensors",
            "teacher_training.start=weights/efficientnet-lite1.pth",
            "teacher_training.epochs=5",
            "store.path=artifacts/caches/lite1.zarr",
        ),
        objectives=("kd", "dkd", "kd-alone"),
    ),
    "ensemble": Part(
        "And both teachers together?",
        (BOTH,),
        objectives=("kd", "dkd", "kd-alone"),
        caches=False,
        needs=("methods", "lite1"),
    ),
}


def changes_of(part: str, others: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what a part's configuration has in place of the file's: its students and sets alone, then its changes.

    Args:
        part: by name.
        others: changes of whoever runs it. None of them brings back a teacher's training that the part does without.
    """
    raw, here = read_config(CONFIG), PARTS[part]
    students = {name: raw["students"][name] for name in here.students}
    changes = [f"students={json.dumps(students)}"]
    if here.objectives:
        sets = {name: raw["objectives"][name] for name in here.objectives}
        changes.append(f"objectives={json.dumps(sets)}")
    last = () if here.trains else ("teacher_training=null",)
    return (*changes, *here.changes, f"runs.path={RUNS / part}", *others, *last)


@click.group()
def main() -> None:
    """Distil on photographs of groceries."""


part_option = click.option("--part", "parts", multiple=True, type=click.Choice(list(PARTS)), help="Default: all.")


@main.command()
@part_option
@click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")
@click.option("--student", "students", multiple=True, help="Default: those of the part.")
@click.option("--objectives", "sets", multiple=True, help="Default: those of the part.")
def run(parts: Sequence[str], changes: Sequence[str], students: Sequence[str], sets: Sequence[str]) -> None:
    """Make what is missing: teachers, caches, students, scores. Other parts that one needs give it theirs."""
    prepare_data.run(ConfigFile(CONFIG, tuple(changes)), replace=False)
    write_halves()
    chosen = parts or tuple(PARTS)
    for name in PARTS:
        if name in chosen or any(name in PARTS[part].needs for part in chosen):
            _make_teacher(name, changes)
    for name in chosen:
        here = ConfigFile(CONFIG, changes_of(name, changes))
        config = here.read(ExperimentConfig)
        for student, objectives, seed in product(config.students, config.objectives, config.runs.seeds):
            if student in (students or config.students) and objectives in (sets or config.objectives):
                run_name = RunName(student, objectives, seed)
                train_student.run(here, run_name, verify="sample", replace=False, wait=True)
        evaluate.run(here)


def _make_teacher(name: str, changes: Sequence[str]) -> None:
    here = ConfigFile(CONFIG, changes_of(name, changes))
    if PARTS[name].caches:
        train_teacher.run(here, replace=False, wait=True)
        cache_teacher.run(here, replace=False, wait=True)


@main.command()
@part_option
def options(parts: Sequence[str]) -> None:
    """Print what each part changes, to be written behind a command of `pipeline`."""
    for name in parts or PARTS:
        given = [f"--set {shlex.quote(change)}" for change in changes_of(name)]
        print(f"# {name}: {PARTS[name].question}\n--config {CONFIG} {' '.join(given)}")


@main.command()
@part_option
def table(parts: Sequence[str]) -> None:
    """Print the scores of the test split that there are: mean over seeds, and sample standard deviation."""
    for name in parts or PARTS:
        file = RUNS / name / "evaluation.json"
        if not file.exists():
            continue
        found = Evaluation.read(file)
        print(f"\n## {name}\n\n{PARTS[name].question}\n")
        if found.teacher is not None and found.teacher.metrics.top1 is not None:
            print(f"Teacher: {100 * found.teacher.metrics.top1:.2f} % right.\n")
        print("| student | objectives | seeds | top-1 (%) | agreement (%) | kNN (%) |\n| --- | --- |" + " ---: |" * 4)
        runs: dict[tuple[str, str], list[tuple[float | None, ...]]] = {}
        for each in found.students:
            knn = None if each.embedding is None else each.embedding.knn
            scores = (each.metrics.top1, each.metrics.agreement, knn)
            runs.setdefault((each.student, each.objectives), []).append(scores)
        for (student, objectives), scores in sorted(runs.items()):
            cells = " | ".join(_cell(values) for values in zip(*scores, strict=True))
            print(f"| {student} | {objectives} | {len(scores)} | {cells} |")


def _cell(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return ""
    spread = f" ± {np.std(known, ddof=1):.2f}" if len(known) > 1 else ""
    return f"{np.mean(known):.2f}{spread}"


if __name__ == "__main__":
    main()
