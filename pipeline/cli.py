"""Defines the command `pipeline`. Each command imports its stage when it runs: `--help` never imports torch.

Exit codes: 0 done, 2 the user's input is wrong, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import click

from pipeline.allocator import keep_freed_memory
from pipeline.commands.caches import inspect, verify
from pipeline.commands.contract import contract
from pipeline.commands.methods import methods
from pipeline.commands.options import artifact_options, config_options
from pipeline.commands.shipping import run_export, run_predict
from pipeline.errors import PipelineError
from pipeline.version import installed_version

VERSION = installed_version() or "0+unknown"


class ErrorsForPeople(click.Group):
    """Groups commands, which end with a message and an exit code instead of a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command, and turn what it raises into a message.

        Args:
            context: click's.
        """
        try:
            return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("\ninterrupted: run the same command again; what was finished is kept", err=True)
            sys.exit(130)
        except Exception as error:
            if context.params.get("show_traceback"):
                traceback.print_exc()
            if isinstance(error, PipelineError):
                click.echo(f"error: {error}", err=True)
                sys.exit(error.exit_code)
            if isinstance(error, BrokenPipeError):  # the reader of the output has closed it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be written at exit
                sys.exit(1)
            if isinstance(error, OSError):
                where = f"\n  where: {error.filename}" if error.filename else ""
                click.echo(f"error: {error.strerror or error}{where}", err=True)
                sys.exit(1)
            click.echo(f"error: {type(error).__name__}: {error}", err=True)
            click.echo(
                "  do: this is a defect of Decant; report it with the output of `pipeline --traceback COMMAND`",
                err=True,
            )
            sys.exit(1)


@click.group(cls=ErrorsForPeople, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="pipeline")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show where in the code an error arose.")
@click.option("--require-version", metavar="VERSION", help="Refuse to run unless this version of Decant is installed.")
def main(show_traceback: bool, require_version: str | None) -> None:
    """Run a teacher once over augmented views, then train any number of students from its outputs.

    \b
    The whole road, in order:
      pipeline check          what would be done, and what it would cost
      pipeline prepare-data   pack a data set into one HDF5 file
      pipeline train-teacher  for those who have no teacher yet
      pipeline cache-teacher  the teacher's outputs for every view, in a Zarr store
      pipeline train-student  a student, from the store, without the teacher
      pipeline evaluate       accuracy, calibration, agreement, cost
      pipeline report         one page with tables and plots
      pipeline predict        what photographs show, by a student
      pipeline export         a student as ONNX, 8 bits, timm's folder, torch.export

    \b
    And at any time:
      pipeline methods        the distillation methods: what each reads of the teacher, and its options
      pipeline contract       whether a plug-in, such as one of your own, keeps what all of its kind must keep
      pipeline inspect        what a cache is; how far one is that is being made; its views as a picture
      pipeline verify         whether it is still what was written, and whether the teacher still agrees
      pipeline dvc-file       the dvc.yaml with which `dvc repro` runs a configuration

    `dvc repro` runs these commands as needed.
    """
    if require_version not in (None, VERSION):
        fix = f"`pipeline dvc-file` writes a dvc.yaml for {VERSION}; or install decant-kd=={require_version}"
        raise PipelineError("another version of Decant is installed", expected=require_version, got=VERSION, fix=fix)
    signal.signal(signal.SIGTERM, _terminate)
    keep_freed_memory()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # end as with Ctrl-C: finish what is being written, say how to go on


main.add_command(inspect)
main.add_command(verify)
main.add_command(methods)
main.add_command(contract)
main.add_command(run_export)
main.add_command(run_predict)


@main.command()
@config_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--time/--no-time", "timed", default=True, show_default=True, help="Time a few images and steps.")
def check(config: Path, overrides: tuple[str, ...], as_json: bool, timed: bool) -> None:
    """Validate the whole experiment and print the plan: work, bytes, files, free disk, time.

    The times of decoding, rendering, inference of the teacher and training are measured on a few images, for
    about five seconds.

    \b
    Examples:
      pipeline check
      pipeline check --config configs/cifar100.yaml --set views.count=16
    """
    from pipeline.commands.check import run
    from pipeline.experiment.source import ConfigFile

    run(ConfigFile(config, overrides), as_json=as_json, timed=timed)


@main.command("prepare-data")
@config_options
@click.option("--replace", is_flag=True, help="Replace a data set that is already there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was packed and left out as JSON.")
def prepare_data(config: Path, overrides: tuple[str, ...], replace: bool, as_json: bool) -> None:
    """Pack a data set into one HDF5 file, and print a table of its splits and what was left out.

    \b
    Examples:
      pipeline prepare-data
      pipeline prepare-data --set data.source='{name: image-folder, path: photos}' --set data.path=photos.h5
    """
    from pipeline.experiment.source import ConfigFile
    from stages.prepare_data import run

    run(ConfigFile(config, overrides), replace=replace, as_json=as_json)


@main.command("train-teacher")
@config_options
@artifact_options
def train_teacher(config: Path, overrides: tuple[str, ...], replace: bool, wait: bool) -> None:
    """Train the teacher on labels, for those who have none. Goes on where it was stopped.

    \b
    Examples:
      pipeline train-teacher
      pipeline train-teacher --set teacher_training.epochs=5
    """
    from pipeline.experiment.source import ConfigFile
    from stages.train_teacher import run

    run(ConfigFile(config, overrides), replace=replace, wait=wait)


@main.command("cache-teacher")
@config_options
@click.option(
    "--part",
    type=click.Choice(["all", "training", "evaluation"]),
    default="all",
    show_default=True,
    help="Only the store that students learn from, or only those of the holdout and the evaluated split.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Compute on the Dask cluster of this scheduler.")
@click.option(
    "--workers", type=click.IntRange(0), default=0, metavar="N", help="Compute in N processes here, a GPU for each."
)
@artifact_options
def run_cache_teacher(
    config: Path, overrides: tuple[str, ...], part: Any, scheduler: str | None, workers: int, replace: bool, wait: bool
) -> None:
    """Write the teacher's outputs for every view to the Zarr store. Goes on where it was stopped.

    \b
    Examples:
      pipeline cache-teacher
      pipeline cache-teacher --config configs/cifar100.yaml --set views.count=16 --set teacher.device=cuda
      pipeline cache-teacher --workers 4
      pipeline cache-teacher --scheduler tcp://10.0.0.1:8786
    """
    if scheduler is not None and workers:
        raise click.UsageError("--scheduler and --workers exclude each other: a cluster has workers of its own")
    from pipeline.experiment.source import ConfigFile
    from stages.cache_teacher import run

    run(ConfigFile(config, overrides), part=part, replace=replace, wait=wait, scheduler=scheduler, workers=workers)


@main.command("train-student")
@config_options
@click.option("--student", required=True, help="A name in the section `students`.")
@click.option("--objectives", required=True, help="A name in the section `objectives`.")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the student; default: below `runs.path`.")
@click.option(
    "--verify",
    type=click.Choice(["full", "sample", "bytes", "none"]),
    default="full",
    show_default=True,
    help="Compare all views with the teacher's pixels before training, some, only the image files, or nothing.",
)
@artifact_options
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
) -> None:
    """Train one student from the teacher cache. Goes on where it was stopped.

    \b
    Examples:
      pipeline train-student --student small --objectives kd
      pipeline train-student --student vit --objectives lfcc-kd --seed 1 --set train.epochs=5
    """
    from pipeline.experiment.runs import RunName
    from pipeline.experiment.source import ConfigFile
    from stages.train_student import run

    name = RunName(student, objectives, seed)
    run(ConfigFile(config, overrides), name, output, verify=verify, replace=replace, wait=wait)


@main.command()
@config_options
def evaluate(config: Path, overrides: tuple[str, ...]) -> None:
    """Measure the teacher and every trained student on `evaluate.split`.

    \b
    Examples:
      pipeline evaluate
      pipeline evaluate --config configs/cifar100.yaml
    """
    from pipeline.experiment.source import ConfigFile
    from stages.evaluate import run

    run(ConfigFile(config, overrides))


@main.command()
@config_options
@click.option("--show", is_flag=True, help="Only print the table of what is evaluated; write nothing.")
@click.option("--quiet", is_flag=True, help="Do not print the table.")
def report(config: Path, overrides: tuple[str, ...], show: bool, quiet: bool) -> None:
    """Write the report page and print the table of students.

    \b
    Examples:
      pipeline report
      pipeline report --config configs/cifar100.yaml --show
    """
    from pipeline.experiment.source import ConfigFile
    from stages.report import run

    run(ConfigFile(config, overrides), write=not show, table=not quiet)


@main.command("dvc-file")
@config_options
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Where to write; default: print.")
def dvc_file(config: Path, overrides: tuple[str, ...], output: Path | None) -> None:
    """Write the dvc.yaml that runs a configuration with `dvc repro`.

    \b
    Examples:
      pipeline dvc-file --config configs/mine.yaml --output experiments/mine/dvc.yaml
      dvc repro experiments/mine/dvc.yaml
    """
    from pipeline.commands.dvc_file import run
    from pipeline.experiment.source import ConfigFile

    run(ConfigFile(config, overrides), output)


if __name__ == "__main__":
    main()
