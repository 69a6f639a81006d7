"""Defines the command that tries a plug-in on what all of its kind must keep."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pipeline.commands.options import json_option, print_json
from pipeline.progress import doing

if TYPE_CHECKING:
    from pipeline.contracts.named import Trial


@click.command()
@click.argument("name")
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="OPTION=VALUE",
    help="Set an option of the plug-in, such as --set probability=0.5. May be repeated.",
)
@json_option("every check and its outcome")
def contract(name: str, options: tuple[str, ...], as_json: bool) -> None:
    """Try a plug-in on what all of its kind must keep, and print what held and what did not. Writes nothing.

    NAME is as in a configuration: module:factory of your own, or a short name. It is tried with its defaults, and with
    each of the examples that its options list. The command ends with 1 if anything did not hold.

    \b
    Examples:
      pipeline contract grain:Grain
      pipeline contract grain:Grain --set most=12
      pipeline contract pad-crop
    """
    from pipeline.contracts.named import trials

    if not __debug__:
        raise click.UsageError("Python was started with -O, which leaves every check out")
    with doing(f"trying {name}"):
        _try(trials(name, options), as_json)


def _try(tried: list[Trial], as_json: bool) -> None:
    """Print what came of every trial; end with 1 if something does not hold."""
    if as_json:
        found = [(trial.title, list(trial.outcomes())) for trial in tried]
        print_json([{"title": title, "checks": [each._asdict() for each in checks]} for title, checks in found])
        if any(each.held is False for _, checks in found for each in checks):
            sys.exit(1)
        return
    broken = sum(map(_print, tried))
    if broken:
        click.echo(f"{broken} did not hold: docs/extending.md has the contract")
        sys.exit(1)
    click.echo("all that was tried held")


def _print(trial: Trial) -> int:
    """Print the outcomes of a trial; return how many checks did not hold."""
    click.echo(trial.title)
    broken = 0
    for outcome in trial.outcomes():
        word = {True: "held", False: "BROKEN", None: "not tried"}[outcome.held]
        click.echo(f"  {word:<9}  {outcome.check}" + (f": {outcome.reason}" if outcome.reason else ""))
        broken += outcome.held is False
    return broken
