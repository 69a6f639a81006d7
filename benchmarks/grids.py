"""What finer maps of the teacher are worth: students that learn from grids of 1, 2, 4 and 8 cells a side.

    python benchmarks/grids.py run --set data.path=cifar100.h5 --set teacher.weights=FILE
    python benchmarks/grids.py table

`run` makes, in the working directory, one cache of 8 views as `configs/cifar100-augmentations.yaml` has them, with maps
on a grid of 8, and trains its ResNet-8 with KD and LFCC, whose scales end at each grid. Means over cells of a finer
grid are those of a coarser one, but for the rounding of float16: so one cache stands for four, each with its own bytes.
The last block's map has 8 x 8 places, as it has 7 x 7 in a network for 224 pixels: the finest grid has all of it. What
is there is kept. `table` prints top-1 on the test images as Markdown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.runs import RunName
from pipeline.experiment.source import ConfigFile
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, evaluate, train_student

CONFIG = Path(__file__).resolve().parents[1] / "configs/cifar100-augmentations.yaml"
RUNS, CACHE = Path("artifacts/grids"), Path("artifacts/caches/grids.zarr")
STUDENT, GRIDS = "resnet8", (1, 2, 4, 8)
KD = "{name: hard-label, weight: 0.1}, {name: kd, weight: 0.9, temperature: 4}"


SETS = {
    f"lfcc-{grid}": f"[{KD}, {{name: lfcc, weight: 10, scales: {[each for each in GRIDS if each <= grid]}}}]"
    for grid in GRIDS
}

FIXED = (
    "views.count=8",
    f"signals.features.grid={max(GRIDS)}",
    f"store.path={CACHE}",
    f"objectives={{kd: [{KD}], {', '.join(f'{name}: {entries}' for name, entries in SETS.items())}}}",
    f"runs.path={RUNS}",
)


@click.group()
def main() -> None:
    """Compare grids of the teacher's maps."""


@main.command()
@click.option("--set", "changes", multiple=True, help="As of the commands: KEY=VALUE.")
@click.option("--objectives", "names", multiple=True, type=click.Choice(["kd", *SETS]), help="Default: all.")
def run(changes: Sequence[str], names: Sequence[str]) -> None:
    """Make the cache, train the students, evaluate them."""
    here = ConfigFile(CONFIG, (*FIXED, *changes))
    config = here.read(ExperimentConfig)
    cache_teacher.run(here, replace=False, wait=True)
    for seed in config.runs.seeds:
        for objectives in names or config.objectives:
            train_student.run(here, RunName(STUDENT, objectives, seed), verify="sample", replace=False, wait=True)
    evaluate.run(here)


def bytes_of_maps(cache: Path) -> dict[int, int]:
    """Return what the maps of one view of one sample take, by the grid.

    Args:
        cache: with maps on the finest grid.
    """
    arrays = TeacherCache.open(cache).manifest.layout.arrays
    maps = [spec for name, spec in arrays.items() if name.startswith("features/")]
    return {grid: sum(spec.shape[2] * grid**2 * spec.dtype.itemsize for spec in maps) for grid in GRIDS}


@main.command()
def table() -> None:
    """Print the test accuracies that there are."""
    tops: dict[str, list[float]] = {}
    for each in Evaluation.read(RUNS / "evaluation.json").students:
        if each.metrics.top1 is not None:
            tops.setdefault(each.objectives, []).append(100 * each.metrics.top1)
    sizes = {f"lfcc-{grid}": count for grid, count in bytes_of_maps(CACHE).items()}
    print("| objectives | bytes of maps a view | top-1 (%) |\n| --- | ---: | ---: |")
    for name, values in tops.items():
        print(f"| {name} | {sizes.get(name, 0):,} | {', '.join(f'{value:.2f}' for value in values)} |")


if __name__ == "__main__":
    main()
