"""Ends commands with a message and an exit code instead of a traceback."""

from __future__ import annotations

import os
import re
import shlex
import sys
import traceback
from typing import Any

import click

from pipeline.commands.silence import silence_broken
from pipeline.errors import PipelineError, message

GIVEN_CONFIG = "pipeline.config"
"""The key of click's `meta` under which the option `--config` is, if somebody gave it."""

OF_A_CONFIGURATION = re.compile(
    r"`pipeline (prepare-data|train-teacher|cache-teacher|train-students?|evaluate|report|export)\b(?![^`]*--config)"
)


def with_config(message: str, config: object) -> str:
    """Return a message in which the commands that say what to do next are for the configuration that was given.

    Args:
        message: of an error.
        config: the file; None if none was given.
    """
    if config is None:
        return message
    option = f" --config {shlex.quote(str(config))}"
    lines = message.split("\n")
    return "\n".join(
        OF_A_CONFIGURATION.sub(lambda found: found[0] + option, line) if line.strip().startswith("do: ") else line
        for line in lines
    )


class ErrorsForPeople(click.Group):
    """Groups commands, which end with a message and an exit code instead of a traceback."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command, and turn what it raises into a message.

        Args:
            context: click's.
        """
        try:
            with silence_broken():
                return super().invoke(context)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("\ninterrupted: run the same command again; what was finished is kept", err=True)
            sys.exit(130)
        except (Exception, SystemExit) as raised:
            error = _told(raised)
            if isinstance(error, SystemExit):  # a command's own
                raise
            if context.params.get("show_traceback"):
                traceback.print_exc()
            if isinstance(error, BrokenPipeError):  # the reader of the output has closed it
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to be written at exit
                sys.exit(1)
            said, code = said_of(error)
            click.echo(f"error: {with_config(said, context.meta.get(GIVEN_CONFIG))}", err=True)
            sys.exit(code)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands that the text of the help does not name.

        Args:
            ctx, formatter: click's.
        """
        others = [(name, command.get_short_help_str(70)) for name, command in sorted(self.commands.items())]
        if rows := [(name, what) for name, what in others if f"pipeline {name} " not in str(self.help)]:
            with formatter.section("More commands"):
                formatter.write_dl(rows)


def said_of(error: BaseException) -> tuple[str, int]:
    """Return the message of an error for people, and the exit code of a command that it ends.

    Args:
        error: as it was raised.
    """
    error = _told(error)
    if isinstance(error, PipelineError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        where = f"\n  where: {error.filename}" if error.filename else ""
        return f"{error.strerror or error}{where}", 1
    if type(error).__name__ == "OutOfMemoryError":  # torch's, which not all commands import
        fix = "lower train.batch_size, or teacher.micro_batch for a teacher, or set train.resident: false"
        return message("the GPU has no memory left", got=str(error).partition("\n")[0], fix=fix), 1
    notes = getattr(error, "__notes__", ())
    fix = "this is a defect of Decant; report it with the output of `pipeline --traceback COMMAND`"
    return message(f"{type(error).__name__}: {error}", where=", ".join(notes) or None, fix=fix), 1


def _told(error: BaseException) -> BaseException:
    """The error to tell of: of code of the user's own, that it failed."""
    if isinstance(error, PipelineError):
        return error
    from pipeline.own_code import failure_of

    return failure_of(error) or error
