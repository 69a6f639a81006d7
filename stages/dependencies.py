"""The code that every stage depends on, as DVC sees it."""

from __future__ import annotations

COMMON = (
    "pipeline/__init__.py",
    "pipeline/config.py",
    "pipeline/errors.py",
    "pipeline/files.py",
    "pipeline/plugins.py",
    "stages/__init__.py",
    "stages/inputs.py",
)
CACHE = ("pipeline/data", "pipeline/views", "pipeline/signals", "pipeline/models", "pipeline/store")
LOOP = (
    "pipeline/objectives/__init__.py",
    "pipeline/objectives/_base.py",
    "pipeline/objectives/_divergence.py",
    "pipeline/objectives/_set.py",
    "pipeline/training",
    "pipeline/evaluation/__init__.py",
    "pipeline/evaluation/cost.py",
    "pipeline/evaluation/metrics.py",
    "pipeline/evaluation/prediction.py",
)
CODE: dict[str, tuple[str, ...]] = {
    "prepare-data": ("pipeline/data", "stages/prepare_data.py"),
    "train-teacher": (*CACHE, *LOOP, "pipeline/objectives/hard_label.py", "stages/train_teacher.py"),
    "cache-teacher": (*CACHE, "stages/cache_teacher.py"),
    "train-student": (*CACHE, *LOOP, "stages/train_student.py"),
    "evaluate": (*CACHE, *LOOP, "stages/evaluate.py"),
    "report": ("pipeline/evaluation", "stages/report.py"),
}
"""What every stage imports; a test runs the stages and compares. The command itself (`cli.py`, `progress.py`)
is left out: it decides what is printed, never what is written."""
