"""Defines the commands that run a stage: what `dvc repro` runs, and people too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.commands.first_look import readable
from pipeline.commands.options import (
    apart_from_json,
    artifact_options,
    cluster_options,
    config_options,
    json_option,
    print_json,
    refuse_two_clusters,
)
from pipeline.commands.students import train_student, train_students


@click.command("prepare-data")
@config_options
@click.option("--replace", is_flag=True, help="Pack again what is there already.")
@json_option("what was packed and left out")
def prepare_data(config: Path, overrides: tuple[str, ...], replace: bool, as_json: bool) -> None:
    """Pack a data set into one HDF5 file, and print a table of its splits.

    Reads `data.source`; writes the file `data.path`, which all later commands read. What was left out is printed, and
    why.

    \b
    Examples:
      pipeline prepare-data
      pipeline prepare-data --set data.source='{name: image-folder, path: photos}' --set data.path=photos.h5
    """
    from pipeline.experiment.source import ConfigFile
    from stages.prepare_data import run

    run(ConfigFile(config, overrides), replace=replace, as_json=as_json)


@click.command("train-teacher")
@config_options
@artifact_options
@json_option("the file of weights and the metrics of the training")
def train_teacher(config: Path, overrides: tuple[str, ...], replace: bool, wait: bool, as_json: bool) -> None:
    """Train the teacher on labels, for those who have none.

    Reads the packed data set; writes the folder of `teacher.weights`: weights, configuration, metrics, history. Without
    a section `teacher_training` it does nothing. Run it again after a stop, and it goes on.

    \b
    Examples:
      pipeline train-teacher
      pipeline train-teacher --set teacher_training.epochs=5
    """
    source = readable(config, overrides)
    from stages.train_teacher import run

    with apart_from_json(as_json):
        run(source, replace=replace, wait=wait)
    if as_json:
        from pipeline.commands.facts import teacher_facts

        print_json(teacher_facts(source))


@click.command("cache-teacher")
@config_options
@click.option(
    "--part",
    type=click.Choice(["all", "training", "evaluation"]),
    default="all",
    show_default=True,
    help="training: only the store that students learn from. evaluation: only those that they are compared with.",
)
@cluster_options("Compute")
@artifact_options
@json_option("what `inspect --json` says of each cache")
def run_cache_teacher(
    config: Path,
    overrides: tuple[str, ...],
    part: Any,
    scheduler: str | None,
    workers: int,
    replace: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Run the teacher once over every view, and keep its outputs in a Zarr store.

    Reads the packed data set and the teacher's weights; writes the store `store.path` and, beside it, those of the
    holdout and of the evaluated split. Run it again after a stop, and it goes on.

    \b
    Examples:
      pipeline cache-teacher
      pipeline cache-teacher --config configs/cifar100.yaml --set views.count=16 --set teacher.device=cuda
      pipeline cache-teacher --workers 4
      pipeline cache-teacher --scheduler tcp://10.0.0.1:8786
    """
    refuse_two_clusters(scheduler, workers)
    source = readable(config, overrides)
    from stages.cache_teacher import run

    with apart_from_json(as_json):
        run(source, part=part, replace=replace, wait=wait, scheduler=scheduler, workers=workers)
    if as_json:
        from pipeline.commands.facts import made_caches

        print_json(made_caches(source, part))


@click.command()
@config_options
@json_option("the content of `evaluation.json`")
def evaluate(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Measure the teacher and every trained student on `evaluate.split`: accuracy, calibration, agreement, cost.

    Writes evaluation.json, metrics.json and details.json in `runs.path`. Students that are not trained yet are left
    out, with a note.

    \b
    Examples:
      pipeline evaluate
      pipeline evaluate --config configs/cifar100.yaml
    """
    source = readable(config, overrides)
    from stages.evaluate import run

    with apart_from_json(as_json):
        run(source)
    if as_json:
        from pipeline.commands.facts import evaluation_facts

        print_json(evaluation_facts(source))


@click.command()
@config_options
@click.option("--show", is_flag=True, help="Only print the table of what is evaluated; write nothing.")
@click.option("--quiet", is_flag=True, help="Do not print the table.")
@json_option("the numbers of the table")
def report(config: Path, overrides: tuple[str, ...], show: bool, quiet: bool, as_json: bool) -> None:
    """Write a page with tables and plots, and print the table of students.

    Reads what `evaluate` wrote; writes the folder `report` below `runs.path`: report.html, and its numbers as files.

    \b
    Examples:
      pipeline report
      pipeline report --config configs/cifar100.yaml --show
    """
    from pipeline.experiment.source import ConfigFile
    from stages.report import run

    source = ConfigFile(config, overrides)
    with apart_from_json(as_json):
        run(source, write=not show, table=not quiet)
    if as_json:
        from pipeline.commands.facts import report_facts

        print_json(report_facts(source, written=not show))


COMMANDS = (prepare_data, train_teacher, run_cache_teacher, train_student, train_students, evaluate, report)
