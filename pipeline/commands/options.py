"""Defines the options that several commands take."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.commands.errors_for_people import GIVEN_CONFIG

if TYPE_CHECKING:
    from pipeline.store.location import StorePath

DEFAULT_CONFIG = Path("configs/digits.yaml")  # as in `pipeline.experiment.source`, which `--help` does not import

Command = TypeVar("Command", bound=Callable[..., Any])


def store_address(value: str) -> StorePath:
    """Return the path of a store.

    Args:
        value: a folder, or an address on object storage; else BadParameter is raised.
    """
    from pipeline.store.location import store_path

    try:
        return store_path(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def config_options(command: Command) -> Command:
    """Add the options that every command takes.

    Args:
        command: the function that click calls.
    """
    command = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a value of the configuration, such as --set train.epochs=5; may be repeated.",
    )(command)
    return click.option(
        "--config",
        "-c",
        type=click.Path(path_type=Path, dir_okay=False),
        default=DEFAULT_CONFIG,
        show_default=True,
        callback=_noted,
        help="The YAML file of the configuration.",
    )(command)


def _noted(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    """Keep a configuration that was given, for messages."""
    if context.get_parameter_source(str(parameter.name)) is not click.core.ParameterSource.DEFAULT:
        context.meta[GIVEN_CONFIG] = value
    return value


def artifact_options(command: Command) -> Command:
    """Add the options of commands that publish an artifact.

    Args:
        command: the function that click calls.
    """
    command = click.option(
        "--replace", is_flag=True, help="Replace what is there, if it was made from something else."
    )(command)
    return click.option(
        "--wait/--no-wait",
        default=True,
        show_default=True,
        help="If another process is making the same: wait for it, or end and name it.",
    )(command)


def cluster_options(verb: str) -> Callable[[Command], Command]:
    """Make a decorator that adds `--scheduler` and `--workers`; `refuse_two_clusters` looks at both.

    Args:
        verb: what workers do, for the help.
    """

    def decorate(command: Command) -> Command:
        command = click.option(
            "--workers",
            type=click.IntRange(0),
            default=0,
            metavar="N",
            help=f"{verb} in N processes on this machine, each with a GPU if there are any.",
        )(command)
        what = f"{verb} on the Dask cluster of this scheduler."
        return click.option("--scheduler", metavar="ADDRESS", help=what)(command)

    return decorate


def refuse_two_clusters(scheduler: str | None, workers: int) -> None:
    """Raise UsageError if both a scheduler and workers of this machine are asked for.

    Args:
        scheduler, workers: as they were given.
    """
    if scheduler is not None and workers:
        raise click.UsageError("--scheduler and --workers exclude each other: a cluster has workers of its own")


def code_option(command: Command) -> Command:
    """Add `--code`, for caches that name code of the user's own; `import_code` imports it.

    Args:
        command: the function that click calls.
    """
    return click.option(
        "--code",
        multiple=True,
        metavar="MODULE:NAME",
        help="Import code of your own that a cache names: its name in the cache alone runs nothing. May be repeated.",
    )(command)


def import_code(names: Sequence[str]) -> None:
    """Import code of the user's own.

    Args:
        names: `module:name`; else, and where there is no such code, BadParameter is raised.
    """
    from pipeline import own_code

    for name in names:
        if not own_code.is_own(name):
            raise click.BadParameter(f"{name!r} does not have the form module:name", param_hint="--code")
        try:
            own_code.imported(name)
        except own_code.NotImportable as error:
            fix = f"; {error.fix}" if error.fix else ""
            raise click.BadParameter(f"{name}: {error.what}{fix}", param_hint="--code") from None


def json_option(what: str) -> Callable[[Command], Command]:
    """Make a decorator that adds `--json`.

    Args:
        what: is printed then, for the help.
    """
    return click.option("--json", "as_json", is_flag=True, help=f"Print {what} as JSON; all else goes to stderr.")


@contextmanager
def apart_from_json(as_json: bool) -> Iterator[None]:
    """Let what is printed go to stderr, so that stdout holds one JSON text and nothing else.

    Args:
        as_json: whether JSON is wanted; else nothing is changed.
    """
    if not as_json:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(facts: object) -> None:
    """Print plain values as indented JSON.

    Args:
        facts: lists and mappings of numbers and texts.
    """
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
