"""Defines the commands that use a trained student: predict, and export to other programs."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pipeline.commands.completion import entries_of, plugins_in
from pipeline.commands.first_look import loading
from pipeline.commands.options import apart_from_json, artifact_options, config_options, json_option, print_json


@click.command("predict")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "folder", required=True, type=click.Path(path_type=Path), help="The folder of a student.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes to name.")
@click.option("--code", metavar="MODULE:FACTORY", help="Run this code of yours, which the student is built by.")
@json_option("the classes of each photograph")
def run_predict(photos: tuple[Path, ...], folder: Path, top: int, code: str | None, as_json: bool) -> None:
    """Say what photographs show: the likeliest classes and their probabilities, as `evaluate` computes them.

    PHOTOS are image files, and folders of them. Those that cannot be read are named at the end, and the exit code is 2.
    Writes nothing.

    \b
    Examples:
      pipeline predict rose.jpg --model artifacts/mine/students/small/kd/seed-0
      pipeline predict photos/ --model artifacts/mine/students/small/kd/seed-0 --top 1 --json
    """
    from pipeline.errors import DataError, first_line, printable

    loading()
    from pipeline.shipping.photographs import photographs
    from pipeline.shipping.predicting import predictions
    from pipeline.shipping.student import ShippedStudent

    files = photographs(photos)
    student = ShippedStudent.open(folder, code)
    student.require_classifier("it says nothing of photographs")
    names = student.model.classes
    failed: list[str] = []
    facts: list[dict[str, object]] = []
    for each in predictions(student, files):
        if each.error is not None:
            failed.append(str(each.error))
            facts.append({"photo": str(each.photo), "error": first_line(each.error)})
            continue
        found = each.top(names, top)
        facts.append({"photo": str(each.photo), "classes": [{"name": name, "probability": p} for name, p in found]})
        if not as_json:
            said = ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in found)
            click.echo(printable(f"{each.photo}: {said}"))
    if as_json:
        print_json(facts)
    if failed:
        text = "\n".join(f"- {error}" for error in failed)
        raise DataError(f"{len(failed)} of {len(files)} photographs were not classified\n{text}")


@click.command("export")
@config_options
@click.option(
    "--student", metavar="NAME", shell_complete=entries_of("students"), help="A name in the section `students`."
)
@click.option(
    "--objectives", metavar="NAME", shell_complete=entries_of("objectives"), help="A name in the section `objectives`."
)
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Of the run.")
@click.option(
    "--model", "folder", type=click.Path(path_type=Path), help="The folder of a student, instead of a configuration."
)
@click.option("--output", type=click.Path(path_type=Path), help="Where to write; default: below `runs.path`.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    shell_complete=plugins_in("shipping/formats"),
    help="timm, onnx, onnx-int8 or torch-export; may be repeated; default: all that fit.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads of what is timed; default: as many as torch uses.")
@click.option(
    "--code", metavar="MODULE:FACTORY", help="Run this code of yours, which the student of --model is built by."
)
@artifact_options
@json_option("the content of `export.json` and its folder")
def run_export(
    config: Path,
    overrides: tuple[str, ...],
    student: str | None,
    objectives: str | None,
    seed: int,
    folder: Path | None,
    output: Path | None,
    formats: tuple[str, ...],
    threads: int | None,
    code: str | None,
    replace: bool,
    wait: bool,
    as_json: bool,
) -> None:
    """Write a student for other programs, and print what each format costs and how good it is.

    Writes a folder for each format below `runs.path`, or to --output. An export that says something else than the
    student is not kept. Eight bits are calibrated on views of the data set, so they need the configuration.

    \b
    Examples:
      pipeline export --student small --objectives kd
      pipeline export --student small --objectives kd --format onnx --output shipped
      pipeline export --model artifacts/mine/students/small/kd/seed-0 --output shipped
    """
    if (folder is None) == (student is None) or (student is None) != (objectives is None):
        raise click.UsageError("name --student and --objectives, or the folder of a student by --model")
    if folder is not None and output is None:
        raise click.UsageError("--model needs --output: where to write")
    loading()
    from pipeline.shipping.commanding import export_folder, export_run

    with apart_from_json(as_json):
        if folder is not None and output is not None:
            written = export_folder(folder, output, formats, threads, code, replace=replace, wait=wait)
        else:
            from pipeline.experiment.runs import RunName
            from pipeline.experiment.source import ConfigFile

            assert student is not None
            assert objectives is not None
            name, source = RunName(student, objectives, seed), ConfigFile(config, overrides)
            written = export_run(source, name, output, formats, threads, replace=replace, wait=wait)
    if as_json:
        from pipeline.shipping.exporting import TABLE

        print_json({"folder": written.as_posix(), **json.loads((written / TABLE).read_text())})
