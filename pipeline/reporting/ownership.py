"""Refuses to replace files that have the names of an evaluation or of a report, and that Decant did not write."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError
from pipeline.reporting.results import RESULTS_MAX_BYTES, Evaluation
from pipeline.untrusted import parse_json, read_file

REPORT_FILES = ("table.md", "summary.json", "accuracy_cost.csv", "overview.png", "report.html")
"""The files that a report consists of."""

MOVE_AWAY_HINT = "move it away, or name another runs.path"


def refuse_foreign_evaluation(path: Path, figures: Path, details: Path) -> None:
    """Raise DataError if a file is in the place of an evaluation that `evaluate` did not write.

    Args:
        path: of the evaluation.
        figures: of its accuracies for DVC, checked if there is no evaluation.
        details: of what it found beyond its figures.
    """
    if path.exists():
        try:
            Evaluation.read(path)
        except DataError:
            raise DataError(
                "a file is in the way that `pipeline evaluate` did not write", where=path, fix=MOVE_AWAY_HINT
            ) from None
    elif figures.exists():  # both are written together
        raise DataError("a file is in the way of the accuracies for DVC", where=figures, fix=MOVE_AWAY_HINT)
    if details.exists() and not _is_details(details):
        raise DataError("a file is in the way of what the report reads", where=details, fix=MOVE_AWAY_HINT)


def refuse_foreign_report(folder: Path) -> None:
    """Raise DataError if `folder` has files with the names of a report's, and no report. Other files may lie there."""
    there = [name for name in REPORT_FILES if (folder / name).exists()]
    if there and not _is_summary(folder / "summary.json"):
        what = "files that `pipeline report` did not write are in the way"
        raise DataError(what, where=folder, got=", ".join(there), fix=MOVE_AWAY_HINT.replace("it", "them"))


def _is_details(file: Path) -> bool:
    """Tell whether this is what an evaluation found, of any version."""
    try:
        value = parse_json(read_file(file, RESULTS_MAX_BYTES, follow=True))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and {"evaluation", "students", "pictures"} <= set(value)


def _is_summary(file: Path) -> bool:
    """Tell whether this is the file of numbers of a report."""
    try:
        value = parse_json(read_file(file, RESULTS_MAX_BYTES, follow=True))
    except (OSError, ValueError):
        return False
    return isinstance(value, dict) and isinstance(value.get("students"), dict)
