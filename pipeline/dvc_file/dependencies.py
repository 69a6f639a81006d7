"""The code that every stage depends on, as DVC sees it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SOURCE_ROOT = Path(__file__).resolve().parents[2]

COMMON = (
    "pipeline/__init__.py",
    "pipeline/config.py",
    "pipeline/errors.py",
    "pipeline/files.py",
    "pipeline/plugins.py",
    "pipeline/untrusted.py",
    "pipeline/experiment/__init__.py",
    "pipeline/experiment/source.py",
    "stages/__init__.py",
)
READING = (
    "pipeline/store/__init__.py",
    "pipeline/store/encodings",
    "pipeline/store/format",
    "pipeline/store/location.py",
    "pipeline/store/published.py",
    "pipeline/store/reader.py",
    "pipeline/store/store_files.py",
    "pipeline/store/workspace.py",
)
"""A cache that is read: neither what makes one, nor object storage, nor the workers of a cluster."""

PARTS = (
    *("pipeline/data", "pipeline/views", "pipeline/signals", "pipeline/models", "pipeline/publishing"),
    *READING,
    *("pipeline/experiment/networks.py", "pipeline/experiment/opened.py"),
)
OBJECTIVES = (
    "pipeline/objectives/__init__.py",
    "pipeline/objectives/base.py",
    "pipeline/objectives/divergence.py",
    "pipeline/objectives/set.py",
)
MEASURING = (
    *OBJECTIVES,
    "pipeline/measuring/__init__.py",
    "pipeline/measuring/cost.py",
    "pipeline/measuring/metrics.py",
    "pipeline/measuring/prediction.py",
)
LEARNING = (
    *PARTS,
    *MEASURING,
    "pipeline/objectives/methods/__init__.py",
    "pipeline/training",
    "pipeline/experiment/learning.py",
    "pipeline/experiment/objective_set.py",
    "pipeline/experiment/run_folder.py",
    "pipeline/experiment/scoring.py",
)
CACHES = ("pipeline/store/config.py", "pipeline/experiment/caches.py", "pipeline/experiment/pointers.py")
ANSWERS = (*CACHES, "pipeline/experiment/cache_config.py", "pipeline/experiment/reference.py")
CODE: dict[str, tuple[str, ...]] = {
    "prepare-data": ("pipeline/data", "stages/prepare_data.py"),
    "train-teacher": (
        *LEARNING,
        "pipeline/measuring/teacher_accuracy.py",
        "pipeline/objectives/methods/hard_label.py",
        "pipeline/experiment/teacher_runs.py",
        "stages/train_teacher.py",
    ),
    "cache-teacher": (
        *PARTS,
        *CACHES,
        "pipeline/measuring/__init__.py",
        "pipeline/measuring/teacher_accuracy.py",
        "pipeline/store/making",
        "stages/cache_teacher.py",
    ),
    "train-student": (
        *LEARNING,
        *ANSWERS,
        "pipeline/experiment/learnt.py",
        "pipeline/experiment/cached_teachers.py",
        "pipeline/experiment/preprocessing.py",
        "stages/train_student.py",
    ),
    "evaluate": (
        *PARTS,
        *MEASURING,
        *ANSWERS,
        "pipeline/reporting/__init__.py",
        "pipeline/reporting/ownership.py",
        "pipeline/reporting/results.py",
        "stages/evaluate.py",
    ),
    "report": (
        *OBJECTIVES,
        "pipeline/signals",
        "pipeline/measuring/__init__.py",
        "pipeline/measuring/metrics.py",
        "pipeline/reporting",
        "stages/report.py",
    ),
}
"""What every stage imports; a test runs the stages and compares. The command itself (`cli.py`, `commands`,
`progress.py`, `allocator.py`) is left out: it decides what is printed and how fast, never what is written."""


def written_in(raw: Any, key: str) -> bool:
    """Whether a configuration says something about a dotted key, instead of leaving it to its default."""
    for part in key.split("."):
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def objective_files(names: Iterable[str]) -> set[str]:
    """The files of some objectives, and those of their room that they import, beyond what every stage has."""
    found: set[str] = set()
    waiting = [f"pipeline/objectives/methods/{name.replace('-', '_')}.py" for name in names]
    while waiting:
        file = waiting.pop()
        if file not in found and file not in OBJECTIVES:
            found.add(file)
            waiting += _imported(file)
    return found


def _imported(file: str) -> list[str]:
    tree = ast.parse((SOURCE_ROOT / file).read_text())
    modules = (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return [f"{module.replace('.', '/')}.py" for module in modules if module.startswith("pipeline.objectives.")]
