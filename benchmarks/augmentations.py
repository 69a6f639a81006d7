"""Which augmentation pays from a cache: students that learn from few or many views of it, for a short or a long time.

    python benchmarks/augmentations.py run --set data.path=cifar100.h5 --set teacher.weights=FILE
    python benchmarks/augmentations.py table

`run` makes, in the working directory, one cache of 32 views for each augmentation of
`configs/cifar100-augmentations.yaml`, trains its students on the first 1, 8 or 32 of them for 12 or 60 epochs with each
of its objective sets, and evaluates them. Epoch e learns from view e, so 12 epochs never read more than 12 views: with
`--epochs 12` the cache has 12, and its students are those of 32 views to the last bit. What is there is kept, so it may
be stopped and begun again, and options choose a part of the whole. `table` prints what is evaluated by then as
Markdown: a table for each student and length of training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import click

from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.reporting.results import Evaluation
from stages import cache_teacher, evaluate, train_student

CONFIG = Path(__file__).resolve().parents[1] / "configs/cifar100-augmentations.yaml"

CROP_FLIP = ("{name: pad-crop, padding: 4}", "{name: horizontal-flip}")
AUGMENTATIONS = {
    "crop-flip": CROP_FLIP,
    "randaugment": (*CROP_FLIP, "{name: randaugment}"),
    "mixup": (*CROP_FLIP, "{name: mixup, alpha: 0.8}"),
}
"""The operations of each: the literature's for CIFAR, and one more."""

EPOCHS, VIEWS = (12, 60), (1, 8, 32)
RUNS = Path("artifacts/cifar100-augmentations")


def folder_of(augmentation: str, epochs: int, views: int) -> Path:
    """Return `runs.path` of the students of one augmentation, length and number of views."""
    return RUNS / f"{augmentation}-{epochs}-epochs-{views}-views"


def overrides(augmentation: str, epochs: int, views: int, cached: int) -> Iterator[str]:
    """Yield what these students' configuration has in place of the file's, where the cache has `cached` views."""
    yield f"views.operations=[{', '.join(AUGMENTATIONS[augmentation])}]"
    yield f"store.path=artifacts/caches/augmentations/{augmentation}-{cached}-views.zarr"
    yield f"views.count={min(views, cached)}"
    yield f"train.epochs={epochs}"
    yield f"runs.path={folder_of(augmentation, epochs, views)}"


@click.group()
def main() -> None:
    """Compare augmentations, from a cache."""


@main.command()
@click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")
@click.option("--student", "students", multiple=True, help="Default: all of the configuration.")
@click.option("--augmentation", "augmentations", multiple=True, type=click.Choice(list(AUGMENTATIONS)))
@click.option("--epochs", "lengths", multiple=True, type=int, help="Default: 12 and 60.")
@click.option("--views", "counts", multiple=True, type=int, help="Default: 1, 8 and 32.")
def run(
    changes: Sequence[str],
    students: Sequence[str],
    augmentations: Sequence[str],
    lengths: Sequence[int],
    counts: Sequence[int],
) -> None:
    """Make the caches, train the students, evaluate them. Shorter training comes first."""
    config = ConfigFile(CONFIG, tuple(changes)).read(ExperimentConfig)
    lengths = lengths or EPOCHS
    cached = min(max(VIEWS), max(lengths))
    for epochs, augmentation in product(lengths, augmentations or AUGMENTATIONS):
        whole = ConfigFile(CONFIG, (*overrides(augmentation, epochs, cached, cached), *changes))
        cache_teacher.run(whole, replace=False, wait=True)
        for student, views in product(students or config.students, counts or VIEWS):
            here = ConfigFile(CONFIG, (*overrides(augmentation, epochs, views, cached), *changes))
            for objectives, seed in product(config.objectives, config.runs.seeds):
                name = RunName(student, objectives, seed)
                train_student.run(here, name, verify="sample", replace=False, wait=True)
            evaluate.run(here)


@main.command()
def table() -> None:
    """Print the test accuracies that there are."""
    found: dict[tuple[str, int], dict[tuple[str, str], dict[int, str]]] = {}
    for augmentation, epochs, views in product(AUGMENTATIONS, EPOCHS, VIEWS):
        file = folder_of(augmentation, epochs, views) / "evaluation.json"
        for each in Evaluation.read(file).students if file.exists() else ():
            rows = found.setdefault((each.student, epochs), {})
            rows.setdefault((augmentation, each.objectives), {})[views] = f"{100 * each.metrics.top1:.2f}"
    for (student, epochs), rows in sorted(found.items()):
        print(f"\n{student}, {epochs} epochs: top-1 (%)\n")
        print("| augmentation | objectives | " + " | ".join(f"{views} views" for views in VIEWS) + " |")
        print("| --- | --- |" + " ---: |" * len(VIEWS))
        for (augmentation, objectives), cells in rows.items():
            print(f"| {augmentation} | {objectives} | " + " | ".join(cells.get(views, "") for views in VIEWS) + " |")


if __name__ == "__main__":
    main()
