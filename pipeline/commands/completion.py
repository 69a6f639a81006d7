"""Defines the command that prints a script for completion in a shell, and what it completes. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, get_completion_class

from pipeline.errors import PipelineError

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
"""What click asks for the words that may stand at a place of the command line."""


SHELLS = ("bash", "zsh", "fish")


def _with_equals(shell: str) -> type[ShellComplete]:
    """Make click's class for a shell that completes `--student=sm`, too: of itself, zsh makes `--student=smsmall`."""
    kind: Any = get_completion_class(shell)

    class WithEquals(kind):  # type: ignore[misc]
        # Without this, zsh looks for a file whose name begins with `--config=`.
        source_template = kind.source_template.replace("_path_files -f", "compset -P '--*='; _path_files -f")
        # Fish compares a file with the whole word, `--config=` included; without an option `$option` is nothing.
        source_template = source_template.replace(
            "__fish_complete_path $metadata[2];",
            "set -l option (string match --regex -- '^--[^=]+=' (commandline -t));"
            ' for path in (__fish_complete_path $metadata[2]); echo "$option$path"; end;',
        )

        def get_completion_args(self) -> tuple[list[str], str]:
            """Return the words before the one that is typed, and that one: bash has `=` as a word of its own."""
            words, incomplete = super().get_completion_args()
            before = ["", *words]
            kept = [word for i, word in enumerate(words) if word != "=" or not before[i].startswith("--")]
            return kept, incomplete

        def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
            """Return what the word may become: all of it, with the option before the `=`."""
            option, equals, _ = incomplete.partition("=")
            found: list[CompletionItem] = super().get_completions(args, incomplete)
            if not equals or not option.startswith("--"):
                return found
            return [_after(f"{option}=", item) if item.type == "plain" else item for item in found]

    return WithEquals


def _after(option: str, item: CompletionItem) -> CompletionItem:
    return CompletionItem(option + item.value, help=item.help)


for _shell in SHELLS:
    add_completion_class(_with_equals(_shell), _shell)


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
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
