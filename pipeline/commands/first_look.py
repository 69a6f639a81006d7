"""Looks at a configuration before torch is loaded, so that a typo is told at once and not after seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.commands.processes import speaks_here
from pipeline.commands.silence import SLOW_IMPORTS
from pipeline.progress import waiting_for

if TYPE_CHECKING:
    from pipeline.errors import Problem
    from pipeline.experiment.source import ConfigFile


@contextmanager
def looked_at(source: ConfigFile) -> Iterator[None]:
    """Tell what is wrong with a configuration that is seen without torch; the command inside tells the rest.

    Args:
        source: the configuration, of which the command reads every section.

    Every problem is told once. Where torch is loaded already there is nothing to wait for, and the command tells all.
    Raises ConfigError with the rest.
    """
    from pipeline.errors import ConfigError

    found = problems_of_names(source) if "torch" not in sys.modules else []
    if not found:
        loading()
        yield
        return
    click.echo(f"error: {ConfigError(found, source.file)}", err=True)
    click.echo("looking for more: options of plug-ins, networks, data ...", err=True)
    try:
        yield
    except ConfigError as error:
        if rest := [problem for problem in error.problems if problem not in found]:
            raise ConfigError(rest, f"{source.file}, besides those above") from None
        click.echo("nothing else is wrong", err=True)
    sys.exit(ConfigError.exit_code)


def problems_of_names(source: ConfigFile) -> list[Problem]:
    """Return what is wrong with the sections of a configuration and their keys, and with names of plug-ins.

    Args:
        source: the configuration.

    No plug-in is imported: their options are not looked at. Raises ConfigError for a file that cannot be read.
    """
    from pipeline.config import bind_each, in_order
    from pipeline.experiment.config import ExperimentConfig
    from pipeline.experiment.source import SECTIONS
    from pipeline.plugins import NAMES_ALONE

    raw = source.raw()
    return in_order(bind_each(raw, ExperimentConfig, SECTIONS, NAMES_ALONE)[1], raw)


def readable(config: Path, overrides: Sequence[str]) -> ConfigFile:
    """Return the configuration of a command that needs torch, of which a line on a terminal tells.

    Args:
        config: a YAML file.
        overrides: `section.key=value`.

    Raises ConfigError for a file that cannot be read, before torch is loaded.
    """
    from pipeline.experiment.source import ConfigFile

    source = ConfigFile(config, overrides)
    source.raw()
    loading()
    return source


def loading() -> None:
    """Say on a terminal that torch is loaded, unless it is there; `pipeline.commands.silence` says so in a log."""
    if "torch" not in sys.modules and speaks_here():
        waiting_for(SLOW_IMPORTS["torch"])
