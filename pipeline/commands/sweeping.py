"""Defines the command that chooses the constants of an objective set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.commands.errors_for_people import GIVEN_CONFIG
from pipeline.commands.first_look import readable
from pipeline.commands.options import (
    apart_from_json,
    cluster_options,
    config_options,
    json_option,
    print_json,
    refuse_two_clusters,
)
from pipeline.commands.students import LARGEST_SEED, objectives_option, student_option, verify_option


@click.command("sweep")
@config_options
@student_option
@objectives_option
@click.option(
    "--vary",
    multiple=True,
    required=True,
    metavar="LABEL.OPTION=VALUES",
    help="What varies, of an objective of the set: a list such as kd.temperature=1,2,4, or a range such as "
    "kd.weight=0.1..10, kd.weight=0.1..10:log, rkd.k=1..8:int; may be repeated.",
)
@click.option(
    "--tries",
    "count",
    type=click.IntRange(1),
    metavar="N",
    help="How many; default: all that are listed, or 20 where a range varies. More can be added later.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    help="Of weights and batches, which all tries have in common, and of the choices.",
)
@click.option("--random", "at_random", is_flag=True, help="Draw from ranges at random; needs no Optuna.")
@click.option("--no-stop", is_flag=True, help="Train every try to its end, hopeless ones too.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of the sweep; default: runs.path/sweeps/STUDENT/OBJECTIVES/seed-N.",
)
@cluster_options("Train")
@verify_option
@click.option("--replace", is_flag=True, help="If another sweep is in the folder: delete its tries, and begin anew.")
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="If another process works on the same sweep: wait for it, or end.",
)
@json_option("all tries, the choice and the cost")
@click.pass_context
def run_sweep(
    context: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    student: str,
    objectives: str,
    vary: tuple[str, ...],
    count: int | None,
    seed: int,
    at_random: bool,
    no_stop: bool,
    output: Path | None,
    scheduler: str | None,
    workers: int,
    verify: Any,
    replace: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Choose constants of an objective set by the holdout, from one cache: each try is a student.

    Reads what train-student reads; writes a folder: sweep.json with all tries, the choice and the cost, sweep.png, and
    the students below tries/. A try that is below the median of the finished ones is stopped. Run it again after a
    stop, and it goes on; with more --tries, it adds some.

    \b
    Examples:
      pipeline sweep --student small --objectives kd --vary kd.temperature=1,2,4,8
      pipeline sweep --student small --objectives kd --vary kd.weight=0.1..10:log --vary kd.temperature=1..8 --tries 30
      pipeline sweep --student small --objectives kd --vary kd.weight=0.5,1,2 --set train.epochs=5 --workers 4
    """
    refuse_two_clusters(scheduler, workers)
    source = readable(config, overrides)
    from pipeline.commands.sweep import run
    from pipeline.experiment.runs import RunName

    found: list[dict[str, Any]] = []
    try:
        with apart_from_json(as_json):
            run(
                source,
                RunName(student, objectives, seed),
                vary,
                count=count,
                stops=not no_stop,
                at_random=at_random,
                folder=output,
                verify=verify,
                replace=replace,
                wait=wait,
                scheduler=scheduler,
                workers=workers,
                show_traceback=bool(context.find_root().params.get("show_traceback")),
                config=context.meta.get(GIVEN_CONFIG),
                done=found.append,
            )
    finally:
        if as_json and found:
            print_json(found[-1])
