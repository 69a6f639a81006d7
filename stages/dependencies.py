"""The code that every stage depends on, as DVC sees it."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

COMMON = (
    "pipeline/__init__.py",
    "pipeline/config.py",
    "pipeline/errors.py",
    "pipeline/files.py",
    "pipeline/plugins.py",
    "pipeline/untrusted.py",
    "stages/__init__.py",
    "stages/inputs.py",
)
PARTS = (
    *("pipeline/data", "pipeline/views", "pipeline/signals", "pipeline/models", "pipeline/store"),
    *("stages/networks.py", "stages/parts.py"),
)
OBJECTIVES = (
    "pipeline/objectives/__init__.py",
    "pipeline/objectives/_base.py",
    "pipeline/objectives/_divergence.py",
    "pipeline/objectives/_set.py",
)
MEASURING = (
    *OBJECTIVES,
    "pipeline/evaluation/__init__.py",
    "pipeline/evaluation/cost.py",
    "pipeline/evaluation/metrics.py",
    "pipeline/evaluation/prediction.py",
)
LEARNING = (
    *PARTS,
    *MEASURING,
    "pipeline/training",
    *("stages/learning.py", "stages/objective_set.py", "stages/run_folder.py", "stages/scoring.py"),
)
CACHES = ("stages/caches.py", "stages/pointers.py")
ANSWERS = (*CACHES, "stages/cache_config.py", "stages/reference.py")
CODE: dict[str, tuple[str, ...]] = {
    "prepare-data": ("pipeline/data", "stages/prepare_data.py"),
    "train-teacher": (
        *LEARNING,
        "pipeline/objectives/hard_label.py",
        *("stages/teacher_runs.py", "stages/train_teacher.py"),
    ),
    "cache-teacher": (*PARTS, *CACHES, "stages/cache_teacher.py"),
    "train-student": (
        *LEARNING,
        *ANSWERS,
        "stages/learnt.py",
        "stages/teachers.py",
        "stages/preprocessing.py",
        "stages/train_student.py",
    ),
    "evaluate": (
        *PARTS,
        *MEASURING,
        *ANSWERS,
        *("pipeline/evaluation/ownership.py", "pipeline/evaluation/results.py", "stages/evaluate.py"),
    ),
    "report": (*OBJECTIVES, "pipeline/signals", "pipeline/evaluation", "stages/report.py"),
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
    waiting = [f"pipeline/objectives/{name.replace('-', '_')}.py" for name in names]
    while waiting:
        file = waiting.pop()
        if file not in found and file not in OBJECTIVES:
            found.add(file)
            waiting += _imported(file)
    return found


def _imported(file: str) -> list[str]:
    tree = ast.parse((ROOT / file).read_text())
    modules = (node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return [f"{module.replace('.', '/')}.py" for module in modules if module.startswith("pipeline.objectives.")]
