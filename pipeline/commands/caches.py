"""Defines the commands that look at teacher caches and change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.commands.completion import complete_paths
from pipeline.commands.first_look import readable
from pipeline.commands.options import code_option, config_options, import_code, json_option, store_address

if TYPE_CHECKING:
    from pipeline.store.location import StorePath


@click.command()
@click.argument("path", required=False, type=store_address, shell_complete=complete_paths)
@config_options
@code_option
@json_option("everything that is known of each cache")
@click.option("--whole", is_flag=True, help="Tell what the teacher is worth by all views, and not by 2,048 of them.")
@click.option("--views", type=click.IntRange(1), metavar="K", help="Draw K views of each of some samples.")
@click.option("--samples", type=click.IntRange(1, 100), default=8, show_default=True, help="How many samples to draw.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The file of the picture; default: in this folder, named after the cache.",
)
@click.pass_context
def inspect(
    context: click.Context,
    path: StorePath | None,
    config: Path,
    overrides: tuple[str, ...],
    code: tuple[str, ...],
    as_json: bool,
    whole: bool,
    views: int | None,
    samples: int,
    output: Path | None,
) -> None:
    """Show what the teacher cache at PATH is, finished or not; without PATH, those of the configuration.

    It tells what the teacher is worth, by at most 2,048 views or, with --whole, by all: how often it is right, how
    sure, how wide its embedding. Writes nothing; with --views, a picture (PNG) of samples with their views and the
    teacher's top classes. The picture needs the packed data set, which the configuration names.

    \b
    Examples:
      pipeline inspect artifacts/caches/digits.zarr
      pipeline inspect --config configs/cifar100.yaml --json
      pipeline inspect artifacts/caches/digits.zarr --whole
      pipeline inspect s3://bucket/caches/digits.zarr
      pipeline inspect artifacts/caches/digits.zarr --views 8 --samples 6 --output views.png
    """
    if views is None and (idle := _given(context, "samples", "output")):
        raise click.UsageError(f"{idle}: only for a picture, which --views draws")
    import_code(code)
    from pipeline.commands.inspect import Sheet, run
    from pipeline.experiment.source import ConfigFile

    sheet = Sheet(views, samples, output) if views is not None else None
    run(ConfigFile(config, overrides), path, sheet=sheet, as_json=as_json, whole=whole)


@click.command()
@click.argument("path", required=False, type=store_address, shell_complete=complete_paths)
@config_options
@click.option(
    "--cache",
    "role",
    type=click.Choice(["all", "training", "holdout", "evaluation"]),
    default="all",
    show_default=True,
    help="Which cache of the configuration.",
)
@click.option("--no-teacher", is_flag=True, help="Check the files alone; needs no data set, no weights, no teacher.")
@click.option(
    "--views",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="About how many views of each cache to render again and to run the teacher on.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws these views.")
@click.option(
    "--least-cosine",
    type=click.FloatRange(-1, 1),
    default=0.98,
    show_default=True,
    help="Least similarity of a view's stored and new signals where another device made the cache.",
)
@click.option(
    "--least-agreement",
    type=click.FloatRange(0, 1),
    default=0.95,
    show_default=True,
    help="Least share of views with the same top-1 class.",
)
@code_option
@json_option("what was checked, and what is wrong,")
@click.pass_context
def verify(
    context: click.Context,
    path: StorePath | None,
    config: Path,
    overrides: tuple[str, ...],
    role: str,
    no_teacher: bool,
    views: int,
    seed: int,
    least_cosine: float,
    least_agreement: float,
    code: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that teacher caches are what was written, and that the teacher still computes the same. Writes nothing.

    Of the cache at PATH, every byte is checked. Of the caches of a configuration some views are also rendered
    again, and the teacher runs on them, as far as the data set and its weights are here. Exit code 0: all is fine;
    1: something is damaged or deviates; 2: there is no such cache, or it is of something else.

    \b
    Examples:
      pipeline verify artifacts/caches/digits.zarr
      pipeline verify --config configs/cifar100.yaml --views 4096 --seed 1
      pipeline verify --config configs/cifar100.yaml --cache evaluation --json
    """
    concerned = ("config", "overrides", "role", "views", "seed", "least_cosine", "least_agreement")
    if path is not None and (idle := _given(context, *concerned)):
        raise click.UsageError(
            "name either PATH, to check the files of a cache, or --config, to check the caches of an experiment; "
            f"only for these: {idle}"
        )
    import_code(code)
    if path is not None:
        from pipeline.commands.verify_files import tell_of_files

        tell_of_files(path, as_json=as_json)
        return
    source = readable(config, overrides)
    from pipeline.commands.verify import run
    from pipeline.inspection.origin import SampleCheck
    from pipeline.inspection.teacher import Limits

    check = None if no_teacher else SampleCheck(views, seed, Limits(least_cosine, least_agreement))
    run(source, role=role, check=check, as_json=as_json)


def _given(context: click.Context, *names: str) -> str:
    """Return the options among these parameters that the user gave, as they are typed."""
    default: Any = click.core.ParameterSource.DEFAULT
    options = {parameter.name: parameter.opts[0] for parameter in context.command.params}
    return ", ".join(options[name] for name in names if context.get_parameter_source(name) is not default)
