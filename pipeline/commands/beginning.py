"""Defines the commands with which people begin."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.commands.first_look import loading
from pipeline.commands.options import json_option, print_json


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file; default: FOLDER.yaml.")
@click.option("--teacher", metavar="MODEL", help="By timm's name; default: by the size of the images.")
@click.option("--weights", metavar="WEIGHTS", help="The teacher's: `pretrained`, a file, or `none` to train it.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@json_option("what was found and written")
def init(
    folder: Path, output: Path | None, teacher: str | None, weights: str | None, force: bool, as_json: bool
) -> None:
    """Look at the images in FOLDER, and write a first configuration for them.

    FOLDER has a folder for each class, perhaps in folders train, val and test; or images alone, without labels.

    \b
    Examples:
      pipeline init photos
      pipeline init photos --output configs/mine.yaml --teacher tf_efficientnet_lite0 --weights lite0.pth
    """
    from pipeline.beginning.first_config import write_first
    from pipeline.beginning.survey import look_at
    from pipeline.commands.first_look import problems_of_names
    from pipeline.errors import DataError, printable
    from pipeline.experiment.source import ConfigFile
    from pipeline.files import write_atomic

    config = output or Path(f"{folder.resolve().name}.yaml")
    survey = look_at(folder)
    first = write_first(survey, config, teacher, weights)
    files = {config: first.text, **first.lists}
    if (there := [path for path in files if path.exists()]) and not force:
        fix = "name another file with --output, or pass --force"
        raise DataError("there is a file already", where=", ".join(map(str, there)), fix=fix)
    config.parent.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        write_atomic(path, text)
    assert not problems_of_names(ConfigFile(config))
    if as_json:
        splits = {split: len(entries) for split, entries in survey.entries.items()}
        facts = {"splits": splits, "classes": list(survey.class_names), "unreadable": dict(survey.unreadable)}
        print_json({**facts, "files": [path.as_posix() for path in files], "next": list(first.commands)})
        return
    for line in survey.lines():
        click.echo(printable(line))
    click.echo(f"written: {', '.join(path.as_posix() for path in files)}")
    click.echo("next:")
    for command in first.commands:
        click.echo(f"  {command}")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path("decant-demo"))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a value, as in other commands.")
def demo(folder: Path, overrides: tuple[str, ...]) -> None:
    """Run everything on scikit-learn's digits, in FOLDER: teacher, cache, two students, report. A few minutes.

    Needs no configuration and no network. Run again, it goes on where it was stopped.

    \b
    Examples:
      pipeline demo
      pipeline demo elsewhere --set train.epochs=5
    """
    loading()
    from pipeline.commands.demo import run

    report = run(folder, overrides)
    click.echo(f"open in a browser: {report}")
    click.echo(f"configuration: {folder / 'digits.yaml'}; for images of your own: pipeline init FOLDER")


@click.command()
@json_option("what was found")
def doctor(as_json: bool) -> None:
    """Examine this machine: versions, extras, threads, disk, shared memory, git, DVC, devices, precision.

    Each line is ok, a warning or a problem, with what to do. Exit code 1: there is a problem.

    \b
    Examples:
      pipeline doctor
      pipeline doctor --json
    """
    import dataclasses

    from pipeline.beginning.machine import Finding, with_torch, without_torch

    found: list[Finding] = []
    for findings in (without_torch, with_torch):
        if findings is with_torch:
            loading()
        for each in findings():
            found.append(each)
            if not as_json:
                click.echo(
                    f"{each.state:<8} {each.name:<14} {each.text}" + (f"\n{'':<24}{each.fix}" if each.fix else "")
                )
    if as_json:
        print_json([dataclasses.asdict(each) for each in found])
    if any(each.state == "problem" for each in found):
        raise click.exceptions.Exit(1)
