"""Defines the commands that use a trained student: predict, and export to other programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("predict")
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "folder", required=True, type=click.Path(path_type=Path), help="Folder of a student.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="How many classes are named.")
@click.option("--code", metavar="MODULE:FACTORY", help="The module of yours that the student is built by.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def run_predict(photos: tuple[Path, ...], folder: Path, top: int, code: str | None, as_json: bool) -> None:
    """Say what photographs show: the likeliest classes and their probabilities, as `evaluate` computes them.

    PHOTOS are image files, and folders of them. Those that cannot be read are named at the end; the exit code is 2
    then.

    \b
    Examples:
      pipeline predict rose.jpg --model artifacts/mine/students/small/kd/seed-0
      pipeline predict photos/ --model artifacts/mine/students/small/kd/seed-0 --top 1 --json
    """
    import json

    from pipeline.errors import DataError, first_line, printable
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
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    if failed:
        text = "\n".join(f"- {error}" for error in failed)
        raise DataError(f"{len(failed)} of {len(files)} photographs were not classified\n{text}")
