"""Writes a student in formats of other programs: each is checked, published at once, and measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DataError, ModelError, printable
from pipeline.experiment.model_card import MODEL_CARD
from pipeline.experiment.model_file import MODEL_FILE
from pipeline.experiment.run_folder import STUDENT
from pipeline.files import write_atomic
from pipeline.models.reused import HEAD_FILE
from pipeline.progress import doing
from pipeline.publishing import Scratch, fingerprint
from pipeline.reporting.exports import student_digest
from pipeline.shipping.format import Exported, ExportRunner, Format, format_named
from pipeline.shipping.measuring import LATENCY_BATCHES, exported_top1, latency, refuse_other_logits, torch_threads
from pipeline.shipping.module import exportable
from pipeline.shipping.split import EvaluatedSplit
from pipeline.shipping.student import ShippedStudent
from pipeline.untrusted import parse_json, read_file

TABLE = "export.json"
BESIDE = (MODEL_FILE, MODEL_CARD)
"""The files of a student that go with every export."""

FORM = 1
"""Of what is written: a number that grows when the same student is written in another way."""

TRAINED = "student"
"""The row of the student itself, in torch."""


@dataclass(frozen=True)
class ExportRow:
    """Holds a line of the table.

    Args:
        format: its name.
        bytes: of its files.
        top1: on the split that is reported, in [0, 1]; None if it is not at hand.
        latency_ms: of a pass, by the images in it.
        made: the fingerprint of what was measured.
    """

    format: str
    bytes: int
    top1: float | None
    latency_ms: dict[int, float]
    made: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**vars(self), "latency_ms": {str(batch): value for batch, value in self.latency_ms.items()}}


def opened_for_export(student: ShippedStudent, calibration: Tensor | None) -> Exported:
    """Return what formats are written from. Raises DataError if the student cannot be exported.

    Args:
        student: with a classifier.
        calibration: cached views; None if none are at hand.
    """
    student.require_classifier("there are no logits to export")
    seen = student.model.input
    if seen.size is None:
        what = "the images that the student is given differ in size, and an export takes one"
        fix = "give evaluate.operations one, such as {name: resize, size: [224, 224]}, and train the student again"
        raise DataError(what, where=student.folder, fix=fix)
    generator = torch.Generator().manual_seed(0)
    shape = (4, seen.channels, *seen.size)
    views = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    if calibration is not None:
        views = calibration[:4].clone()  # an export of torch keeps all that they are a part of
    return Exported(student, exportable(student, seen.size), views, calibration)


def export(
    exported: Exported,
    formats: Sequence[str],
    output: Path,
    *,
    split: EvaluatedSplit | None,
    threads: int,
    replace: bool = False,
    wait: bool = True,
) -> list[ExportRow]:
    """Write formats to folders of their names below `output`, and what was measured to `export.json` there.

    Returns the rows of the table, the student's own first. Raises ModelError for a student that a format cannot hold,
    or whose logits are others there; then nothing of that format is kept.

    Args:
        exported: the student.
        formats: their names.
        split: that is reported; None measures no accuracy.
        threads: of the arithmetic that is timed.
        replace: whether another student's exports make way.
        wait: for another process that writes the same, or raise.
    """
    digest = student_digest(exported.student.folder)
    known = _known_rows(output, split, threads)
    rows = []
    with torch_threads(threads):
        for name in (TRAINED, *formats):
            runner: ExportRunner | None = None
            if name == TRAINED:
                made, folder = digest, exported.student.folder
                files = [folder / STUDENT, folder / HEAD_FILE]
            else:
                form, folder = format_named(name), output / name
                made = _fingerprint(name, exported, digest)
                runner = _published(name, form, exported, folder, made, threads, replace=replace, wait=wait)
                files = [folder / file for file in form.FILES]
            row = known.get((name, made))
            if row is None:
                what = "latency" if split is None else f"accuracy on {split.samples.split.name} and latency"
                print(f"{folder}: measuring {what}", flush=True)
                with doing(f"measuring {name}"):
                    runner = runner or _runner(name, exported, folder, threads)
                    row = ExportRow(
                        name,
                        sum(file.stat().st_size for file in files if file.exists()),
                        exported_top1(runner, split) if split is not None else None,
                        {batch: latency(runner, exported.views, batch) for batch in LATENCY_BATCHES},
                        made,
                    )
            rows.append(row)
    facts = {
        "student": exported.student.model.name,
        "split": split.samples.split.name if split is not None else None,
        "threads": threads,
        "formats": [row.to_json() for row in rows],
    }
    write_atomic(output / TABLE, json.dumps(facts, indent=2) + "\n")
    return rows


def _runner(name: str, exported: Exported, folder: Path, threads: int) -> ExportRunner:
    if name == TRAINED:
        return ExportRunner(exported.student.logits, lambda views: views)
    return format_named(name).load_runner(exported, folder, threads)


def _published(
    name: str,
    form: Format,
    exported: Exported,
    folder: Path,
    made: str,
    threads: int,
    *,
    replace: bool,
    wait: bool,
) -> ExportRunner | None:
    """Write one format, check it and publish its folder; None if it was there already."""
    if (why := form.refusal(exported.student)) is not None:
        raise ModelError(f"the student cannot be written as {name}", where=exported.student.folder, got=why)
    with Scratch(folder, made, files={*form.FILES, *BESIDE}, wait=wait) as scratch:
        if scratch.done:
            print(f"{folder}: already there")
            return None
        scratch.refuse_other(replace)
        print(f"{folder}: writing it, then comparing logits" if form.EXACT else f"{folder}: writing it", flush=True)
        with doing(f"writing {name}"):
            form.write(exported, scratch.folder)
        runner = form.load_runner(exported, scratch.folder, threads)
        if runner.from_image is not None and not runner.whole:
            print(f"note: the transform of {name} does not do evaluate.operations: do them before it")
        if form.EXACT:
            with doing(f"comparing the logits of {name}"):
                refuse_other_logits(name, exported, runner)
        for file in BESIDE:
            if (exported.student.folder / file).exists():
                shutil.copyfile(exported.student.folder / file, scratch.folder / file)
        for path in scratch.folder.iterdir():  # durable before the folder is renamed
            write_atomic(path, path.read_bytes())
        scratch.publish(replace)
    print(f"{folder}: written")
    return runner


def _fingerprint(name: str, exported: Exported, weights: str) -> str:
    views = None
    if not format_named(name).EXACT and exported.calibration is not None:
        views = hashlib.sha256(exported.calibration.numpy().tobytes()).hexdigest()
    identity = {"artifact": "export", "format": name, "form": FORM, "student": weights, "calibration": views}
    return fingerprint(identity)


def _known_rows(output: Path, split: EvaluatedSplit | None, threads: int) -> dict[tuple[str, str], ExportRow]:
    """Return what an earlier command measured of the same, on the same split and with as many threads."""
    try:
        facts = parse_json(read_file(output / TABLE, 1 << 20, follow=True))
        name = split.samples.split.name if split is not None else None
        if (facts["threads"], facts["split"]) != (threads, name):
            return {}
        rows = [
            ExportRow(**{**row, "latency_ms": {int(k): float(v) for k, v in row["latency_ms"].items()}})
            for row in facts["formats"]
        ]
    except (OSError, KeyError, TypeError, ValueError, AttributeError):
        return {}
    return {(row.format, row.made): row for row in rows}


def export_table(rows: Sequence[ExportRow], split: str | None, threads: int) -> list[str]:
    """Return the lines of the table for people.

    Args:
        rows: measured.
        split: its name; None if none was at hand.
        threads: of the arithmetic.
    """
    head = ["format", "bytes", "top-1 (%)", *(f"ms at batch {batch}" for batch in LATENCY_BATCHES)]
    lines = [head]
    for row in rows:
        top1 = "–" if row.top1 is None else f"{100 * row.top1:.2f}"
        lines.append([row.format, f"{row.bytes:,}", top1, *(f"{row.latency_ms[b]:.3f}" for b in LATENCY_BATCHES)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    where = "no accuracy: the packed data set is not at hand" if split is None else f"top-1 on split {split!r}"
    note = f"{where}; on the CPU with {threads} thread{'s' if threads > 1 else ''}"
    first, *others = widths
    text = ["  ".join([line[0].ljust(first), *map(str.rjust, line[1:], others)]) for line in lines]
    return [*map(printable, text), printable(note)]
