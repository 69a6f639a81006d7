"""Defines the command that lists the distillation methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pipeline.commands.completion import plugins_in
from pipeline.commands.options import json_option, print_json

if TYPE_CHECKING:
    from pipeline.objectives.catalogue import Method


@click.command()
@click.argument("name", required=False, shell_complete=plugins_in("objectives/methods"))
@json_option("name, summary, text, needs and options of each method")
def methods(name: str | None, as_json: bool) -> None:
    """List the distillation methods: what each is, what it reads of the teacher, its options; or NAME in full.

    Writes nothing. docs/methods.md compares them.

    \b
    Examples:
      pipeline methods
      pipeline methods crcd
      pipeline methods --json
    """
    import dataclasses

    from pipeline.errors import ArgumentError, ConfigError
    from pipeline.objectives.catalogue import list_methods, method

    try:
        found = [method(name)] if name else list_methods()
    except ConfigError as error:
        raise ArgumentError(error.problems, "pipeline methods") from None
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
    elif name:
        click.echo(f"{found[0].text}\n\n{_facts(found[0])}")
    else:
        click.echo("\n\n".join(f"{each.summary}\n{_facts(each)}" for each in found))


def _facts(each: Method) -> str:
    options = ", ".join(f"{option}: {_plain(default)}" for option, default in each.options.items())
    lines = [
        f"  name     {each.name}",
        f"  needs    {', '.join(each.needs) or 'nothing of the teacher'}",
        f"  options  {options or 'none'}",
    ]
    return "\n".join(lines)


def _plain(default: object) -> str:
    if isinstance(default, tuple):
        return f"[{', '.join(map(str, default))}]"
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
