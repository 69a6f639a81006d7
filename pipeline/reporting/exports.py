"""Reads what `pipeline export` measured of students in other formats: bytes, accuracy and latency of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.errors import DataError
from pipeline.reporting.results import Evaluation, StudentResult
from pipeline.untrusted import parse_json, read_file

EXPORTS_FOLDER = "exports"
"""Below `runs.path`: where `pipeline export` writes the students of a configuration."""

STUDENT_FILES = ("model.json", "student.safetensors", "head.safetensors")
"""The files that decide what a student computes; of those without a reused head the last is missing."""

MOST_EXPORT_BYTES = 1 << 20
SAME_WITHIN = 0.002
"""By how much the accuracy of one student may differ between two programs, or 2 images: near ties fall otherwise."""


class ExportFigures(BaseModel):
    """Holds what was measured of a student in one format.

    Args:
        format: its name; `student` is the student itself, in torch.
        bytes: of its files.
        top1: on the split that is reported, in [0, 1]; None if it was not measured.
        latency_ms: of a pass, by the number of images in it.
        made: what it was made of: of the student itself, its `student_digest`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    format: str
    bytes: int = Field(ge=0)
    top1: float | None
    latency_ms: Mapping[int, float]
    made: str | None = None


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")
    split: str | None
    threads: int
    formats: tuple[ExportFigures, ...]


@dataclass(frozen=True)
class ExportedStudent:
    """Holds the exports of one run.

    Args:
        student, objectives, seed: the run.
        threads: of the arithmetic that was timed.
        formats: the student itself first.
        stale: whether they are of another student than the one that was evaluated.
    """

    student: str
    objectives: str
    seed: int
    threads: int
    formats: tuple[ExportFigures, ...]
    stale: bool


def read_exports(root: Path, evaluation: Evaluation) -> list[ExportedStudent]:
    """Read the exports below a folder of those runs that were evaluated, in the order of the evaluation.

    Args:
        root: the folder of runs.
        evaluation: says which runs there are, and how good they are.

    Raises DataError if a file is none of `pipeline export`.
    """
    found = []
    for result in evaluation.students:
        path = root / EXPORTS_FOLDER / result.student / result.objectives / f"seed-{result.seed}" / "export.json"
        if not path.exists():
            continue
        try:
            table = _Table.model_validate(parse_json(read_file(path, MOST_EXPORT_BYTES, follow=True)))
        except (OSError, ValueError, ValidationError):
            fix = "run `pipeline export` again, or move it away"
            raise DataError("not what `pipeline export` writes", where=path, fix=fix) from None
        folder = root / "students" / result.student / result.objectives / f"seed-{result.seed}"
        formats, stale = table.formats, _of_others(table.formats, folder)
        if table.split == evaluation.split:
            stale = stale or not _same(formats, result)
        else:  # accuracy on other images is no figure of this page
            formats = tuple(each.model_copy(update={"top1": None}) for each in formats)
        run = (result.student, result.objectives, result.seed)
        found.append(ExportedStudent(*run, table.threads, formats, stale))
    return found


def smallest_exports(exports: Sequence[ExportedStudent]) -> dict[tuple[str, str], ExportFigures]:
    """Return the smallest format of every student and objective set, of the first seed that was exported.

    Args:
        exports: as of `read_exports`.
    """
    found: dict[tuple[str, str], ExportFigures] = {}
    for each in exports:
        written = [one for one in each.formats if one.format != "student"]
        if written and not each.stale:
            found.setdefault((each.student, each.objectives), min(written, key=lambda one: one.bytes))
    return found


def student_digest(folder: Path) -> str:
    """Return the SHA-256, in hexadecimal digits, of the files in a student's folder that decide what it computes.

    Args:
        folder: of the student; those of the files that are missing count as empty.
    """
    digest = hashlib.sha256()
    for name in STUDENT_FILES:
        content = (folder / name).read_bytes() if (folder / name).exists() else b""
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _of_others(formats: Sequence[ExportFigures], folder: Path) -> bool:
    """Tell whether exports are of other weights than those in the student's folder; not where these are not here."""
    made = next((one.made for one in formats if one.format == "student"), None)
    there = all((folder / name).exists() for name in STUDENT_FILES[:2])
    return made is not None and there and made != student_digest(folder)


def _same(formats: Sequence[ExportFigures], result: StudentResult) -> bool:
    """Tell whether the student that was exported is as good as the one that was evaluated."""
    own = next((one.top1 for one in formats if one.format == "student"), None)
    expected = result.metrics.top1
    if own is None or expected is None:
        return True
    return abs(own - expected) <= max(SAME_WITHIN, 2 / result.metrics.count)
