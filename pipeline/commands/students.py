"""Defines the commands that train students."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.completion import entries_of
from pipeline.commands.errors_for_people import GIVEN_CONFIG
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
from pipeline.commands.processes import together, told_once

if TYPE_CHECKING:
    from pipeline.commands.many_students import Trained

verify_option = click.option(
    "--verify",
    type=click.Choice(["full", "sample", "bytes", "none"]),
    default="full",
    show_default=True,
    help="What is compared with the teacher's pixels first: all views, a sample, only image files, or nothing.",
)


LARGEST_SEED, MOST_SEEDS = 2**31 - 1, 1000

MOST_SIDE_BY_SIDE = 8
"""Each has three streams of a GPU, of which torch has 32 for a process."""


student_option = click.option(
    "--student",
    required=True,
    metavar="NAME",
    shell_complete=entries_of("students"),
    help="A name in the section `students`.",
)
objectives_option = click.option(
    "--objectives",
    required=True,
    metavar="NAME",
    shell_complete=entries_of("objectives"),
    help="A name in the section `objectives`.",
)


def seeds_of(text: str) -> range:
    """Read a seed, or the first and the last of several: `3`, or `0-4`. Raises BadParameter for what is neither.

    Args:
        text: as it was given.
    """
    first, dash, last = text.partition("-")
    if not (first.isdecimal() and (last.isdecimal() or not dash)):
        raise click.BadParameter(f"{text!r} is no seed, and no range of seeds such as 0-4", param_hint="--seed")
    seeds = range(int(first), int(last or first) + 1)
    if not seeds or seeds[-1] > LARGEST_SEED:
        what = f"{text!r} holds no seeds from 0 to {LARGEST_SEED}, the smallest first"
        raise click.BadParameter(what, param_hint="--seed")
    if len(seeds) > MOST_SEEDS:
        raise click.BadParameter(f"{text!r} holds more than {MOST_SEEDS} seeds", param_hint="--seed")
    return seeds


@click.command("train-student")
@config_options
@student_option
@objectives_option
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of weights and batches.")
@click.option("--output", type=click.Path(path_type=Path), help="The student's folder; default: below `runs.path`.")
@verify_option
@artifact_options
@json_option("the folder and the metrics of the training")
def train_student(
    config: Path,
    overrides: tuple[str, ...],
    student: str,
    objectives: str,
    seed: int,
    output: Path | None,
    verify: Any,
    replace: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Train one student from the teacher's cache, without the teacher.

    Reads the packed data set and the store; writes a folder below `runs.path`: weights, model.json, a model card,
    configuration, metrics, history. Run it again after a stop, and it goes on. Several processes train one student
    together where torchrun begins them; the student is another one than that of one process.

    \b
    Examples:
      pipeline train-student --student small --objectives kd
      pipeline train-student --student vit --objectives lfcc-kd --seed 1 --set train.epochs=5
      torchrun --standalone --nproc-per-node 2 -m pipeline train-student --student small --objectives kd
    """
    from pipeline.experiment.runs import RunName

    with told_once():
        source, name = readable(config, overrides), RunName(student, objectives, seed)
    from stages.train_student import run

    with together() as world:
        with apart_from_json(as_json):
            run(source, name, output, verify=verify, replace=replace, wait=wait, world=world)
        if as_json:
            from pipeline.commands.facts import student_facts

            print_json(student_facts(source, name, output))


@click.command("train-students")
@config_options
@click.option(
    "--student",
    "students",
    multiple=True,
    metavar="PATTERN",
    shell_complete=entries_of("students"),
    help="A name in the section `students`, or a pattern such as 'vit*'; may be repeated. Default: all.",
)
@click.option(
    "--objectives",
    multiple=True,
    metavar="PATTERN",
    shell_complete=entries_of("objectives"),
    help="A name in the section `objectives`, or a pattern; may be repeated. Default: all.",
)
@click.option(
    "--seed",
    "seeds",
    multiple=True,
    metavar="N or N-N",
    help="A seed, or several such as 0-4; may be repeated. Default: those of `runs.seeds`.",
)
@cluster_options("Train")
@click.option(
    "--side-by-side",
    type=click.IntRange(1, MOST_SIDE_BY_SIDE),
    metavar="N",
    help=f"Train N students at once in this process, on one GPU: at most {MOST_SIDE_BY_SIDE}. Needs `train.capture`.",
)
@verify_option
@artifact_options
@json_option("what became of each student")
@click.pass_context
def train_students(
    context: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    students: tuple[str, ...],
    objectives: tuple[str, ...],
    seeds: tuple[str, ...],
    scheduler: str | None,
    workers: int,
    side_by_side: int | None,
    verify: Any,
    replace: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Train all students that are missing, one after another, and load torch once for all of them.

    Writes the folders that `train-student` would, with the same weights. If one fails, the others are trained all the
    same. Run it again after a stop, and it goes on. Each student has a process of its own. With workers, several are
    trained at once; one whose worker dies goes on elsewhere from its last checkpoint. Side by side, small students
    share one process, and a GPU that one of them would leave idle.

    \b
    Examples:
      pipeline train-students
      pipeline train-students --student vit --objectives 'lfcc*' --seed 0-4
      pipeline train-students --workers 4
      pipeline train-students --scheduler tcp://10.0.0.1:8786
      pipeline train-students --side-by-side 8 --set train.capture=true
    """
    refuse_two_clusters(scheduler, workers)
    if side_by_side and (scheduler is not None or workers):
        raise click.UsageError("--side-by-side trains in this process: it excludes --workers and --scheduler")
    if side_by_side and wait and context.get_parameter_source("wait") is not click.core.ParameterSource.DEFAULT:
        raise click.UsageError("--side-by-side does not --wait: the other students would stand still")
    source = readable(config, overrides)
    from pipeline.commands.many_students import RunPatterns, run

    patterns = RunPatterns(students, objectives, [*chain(*map(seeds_of, seeds))])
    results: list[Trained] = []
    show_traceback = bool(context.find_root().params.get("show_traceback"))
    options = {"verify": verify, "replace": replace, "wait": wait, "show_traceback": show_traceback}
    options |= {"scheduler": scheduler, "workers": workers, "at_once": side_by_side or 0}
    given = context.meta.get(GIVEN_CONFIG)
    try:
        with apart_from_json(as_json):
            run(
                source,
                patterns,
                **options,
                config=given,
                done=results.append,
            )
    finally:
        if as_json and results:
            print_json([each.to_json() for each in results])
