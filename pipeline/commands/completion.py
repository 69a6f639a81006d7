"""Defines the command that prints a script for completion in a shell, and what it completes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from pipeline.errors import PipelineError

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
"""What click asks for the words that may stand at a place of the command line."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options and names with the Tab key.

    Besides commands and options it completes the students and objective sets of the configuration, the methods, the
    formats of an export, and files. Nothing is written; put one of the lines below into the file that your shell
    reads when it starts.

    \b
    Examples:
      eval "$(pipeline completion bash)"                    in ~/.bashrc
      eval "$(pipeline completion zsh)"                     in ~/.zshrc
      pipeline completion fish > ~/.config/fish/completions/pipeline.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # the choices are click's own shells
    group = context.find_root().command
    click.echo(kind(group, {}, "pipeline", "_PIPELINE_COMPLETE").source())


def entries_of(section: str) -> Completer:
    """Make a completer of the names in a section of the configuration.

    Args:
        section: `students` or `objectives`.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from pipeline.yaml_text import read_config

        given = context.params.get("config") or Path("configs/digits.yaml")
        entries: Any = {}
        with suppress(PipelineError):  # a command says what is wrong with it; completion does not
            entries = read_config(given, context.params.get("overrides") or ()).get(section)
        return _beginning(incomplete, entries if isinstance(entries, dict) else ())

    return complete


def plugins_in(folder: str) -> Completer:
    """Make a completer of the names of Decant's own plug-ins.

    Args:
        folder: below `pipeline`. Its files are listed, not imported.
    """

    def complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
        files = (Path(__file__).parents[1] / folder).glob("[!_]*.py")
        return _beginning(incomplete, sorted(file.stem.replace("_", "-") for file in files))

    return complete


def complete_paths(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete files and folders.

    Args:
        context, parameter: click's.
        incomplete: what is typed already.
    """
    return [CompletionItem(incomplete, type="file")]


def _beginning(incomplete: str, names: Any) -> list[CompletionItem]:
    return [CompletionItem(str(name)) for name in names if str(name).startswith(incomplete)]
