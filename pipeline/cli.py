"""Defines the command `pipeline`. Each command imports its stage when it runs: `--help` never imports torch.

Exit codes: 0 done, 2 the user's input is wrong, 1 anything else, 130 interrupted.
"""

from __future__ import annotations

import atexit
import gc
import io
import signal
import sys
from pathlib import Path
from types import FrameType

import click

from pipeline.allocator import fix_workspaces, keep_freed_memory
from pipeline.commands import stages
from pipeline.commands.beginning import demo, doctor, init
from pipeline.commands.caches import inspect, verify
from pipeline.commands.completion import completion
from pipeline.commands.contract import contract
from pipeline.commands.errors_for_people import ErrorsForPeople
from pipeline.commands.first_look import looked_at
from pipeline.commands.methods import methods
from pipeline.commands.options import config_options, json_option
from pipeline.commands.processes import refuse_several_processes
from pipeline.commands.shipping import run_export, run_predict
from pipeline.commands.sweeping import run_sweep
from pipeline.errors import PipelineError
from pipeline.version import installed_version

VERSION = installed_version() or "0+unknown"


@click.group(cls=ErrorsForPeople, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="pipeline")
@click.option("--traceback", "show_traceback", is_flag=True, help="Show where in the code an error arose.")
@click.option("--require-version", metavar="VERSION", help="Refuse to run unless this version of Decant is installed.")
def main(show_traceback: bool, require_version: str | None) -> None:
    """Run a teacher once over augmented views, then train any number of students from its outputs.

    \b
    To begin:
      pipeline init FOLDER    a first configuration, for a folder of images
      pipeline doctor         what this machine lacks, and what computes on it
      pipeline demo           everything on scikit-learn's digits, in a few minutes

    \b
    The whole road, in order:
      pipeline check          what would be done, and what it would cost
      pipeline prepare-data   pack a data set into one HDF5 file
      pipeline train-teacher  for those who have no teacher yet
      pipeline cache-teacher  the teacher's outputs for every view, in a Zarr store
      pipeline train-student  a student, from the store, without the teacher
      pipeline train-students all that are missing
      pipeline sweep          constants of an objective set, chosen on the holdout
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
      pipeline completion     completion with the Tab key, for bash, zsh and fish

    Each says with --help what it reads, and what it writes where; those of an experiment take --config FILE.
    `dvc repro` runs them as needed.
    """
    if require_version not in (None, VERSION):
        fix = f"`pipeline dvc-file` writes a dvc.yaml for {VERSION}; or install decant-kd=={require_version}"
        raise PipelineError("another version of Decant is installed", expected=require_version, got=VERSION, fix=fix)
    refuse_several_processes(click.get_current_context().invoked_subcommand)
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # into a pipe or a log, too: a line is seen when it is said
    atexit.register(gc.freeze)  # else Python seeks garbage among all that torch and timm made, for a second
    keep_freed_memory()
    fix_workspaces()


def _terminate(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt  # end as with Ctrl-C: finish what is being written, say how to go on


for _stage in stages.COMMANDS:
    main.add_command(_stage)
main.add_command(inspect)
main.add_command(verify)
main.add_command(methods)
main.add_command(contract)
main.add_command(run_sweep)
main.add_command(run_export)
main.add_command(run_predict)
main.add_command(completion)
main.add_command(init)
main.add_command(doctor)
main.add_command(demo)


@main.command()
@config_options
@json_option("the plan")
@click.option("--time/--no-time", "timed", default=True, show_default=True, help="Whether to measure times.")
def check(config: Path, overrides: tuple[str, ...], as_json: bool, timed: bool) -> None:
    """Validate the whole configuration and print the plan: work, bytes, files, free disk, time. Writes nothing.

    Every problem is reported at once, before any work. Times are measured on a few images, for about five seconds.

    \b
    Examples:
      pipeline check
      pipeline check --config configs/cifar100.yaml --set views.count=16
    """
    from pipeline.experiment.source import ConfigFile

    source = ConfigFile(config, overrides)
    with looked_at(source):
        from pipeline.commands.check import run

        run(source, as_json=as_json, timed=timed)


@main.command("dvc-file")
@config_options
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="Where to write it, such as experiments/mine/dvc.yaml; default: print it.",
)
def dvc_file(config: Path, overrides: tuple[str, ...], output: Path | None) -> None:
    """Write the dvc.yaml that runs a configuration with `dvc repro`.

    Prints it, or writes it to --output; a file that you wrote yourself is left alone. Write it again after a change of
    students, objective sets, seeds or sections.

    \b
    Examples:
      pipeline dvc-file --config configs/mine.yaml --output experiments/mine/dvc.yaml
      dvc repro experiments/mine/dvc.yaml
    """
    from pipeline.experiment.source import ConfigFile

    source = ConfigFile(config, overrides)
    with looked_at(source):
        from pipeline.commands.dvc_file import run

        run(source, output)


if __name__ == "__main__":
    main()
