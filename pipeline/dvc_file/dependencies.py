"""Lists the code that every stage depends on, for DVC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SOURCE_ROOT = Path(__file__).resolve().parents[2]

COMMON = (
    "pipeline/__init__.py",
    "pipeline/config.py",
    "pipeline/errors.py",
    "pipeline/files.py",
    "pipeline/untrusted.py",
    "pipeline/yaml_text.py",
    "pipeline/experiment/__init__.py",
    "pipeline/experiment/source.py",
    "stages/__init__.py",
)
PLUGINS = ("pipeline/factories.py", "pipeline/own_code.py", "pipeline/plugins.py")
READING = (
    "pipeline/store/__init__.py",
    "pipeline/store/backend.py",
    "pipeline/store/encodings/__init__.py",
    "pipeline/store/encodings/_choice.py",
    "pipeline/store/encodings/_contract.py",
    "pipeline/store/format",
    "pipeline/store/location.py",
    "pipeline/store/reader.py",
    "pipeline/store/workspace.py",
)
"""The code that reads a cache: not that which makes one, nor object storage, nor the workers of a cluster."""

PARTS = (
    *PLUGINS,
    "pipeline/ahead.py",
    "pipeline/late.py",
    *("pipeline/data/*.py", "pipeline/views/*.py", "pipeline/signals/*.py", "pipeline/models", "pipeline/publishing"),
    *READING,
    "pipeline/store/config.py",
    "pipeline/experiment/data.py",
    "pipeline/experiment/networks.py",
    "pipeline/experiment/section_sets.py",
    "pipeline/experiment/sections.py",
)
DIVERGENCE = (
    "pipeline/objectives/__init__.py",
    "pipeline/objectives/config.py",
    "pipeline/objectives/divergence.py",
)
SETS = (
    "pipeline/objectives/base.py",
    "pipeline/objectives/batch.py",
    "pipeline/objectives/dropping.py",
    "pipeline/objectives/neighbours.py",
    "pipeline/objectives/precision.py",
    "pipeline/objectives/requirements.py",
    "pipeline/objectives/sample_objective.py",
    "pipeline/objectives/set.py",
    "pipeline/objectives/standardised.py",
)
OBJECTIVES = (*DIVERGENCE, *SETS)
MEASURING = (
    *DIVERGENCE,
    "pipeline/measuring/__init__.py",
    "pipeline/measuring/cost.py",
    "pipeline/measuring/measured.py",
    "pipeline/measuring/metrics.py",
    "pipeline/measuring/neighbours.py",
    "pipeline/measuring/prediction.py",
    "pipeline/measuring/score.py",
)
LEARNING = (
    *PARTS,
    *MEASURING,
    *SETS,
    "pipeline/objectives/methods/__init__.py",
    "pipeline/stepwise.py",
    "pipeline/store/kept.py",
    "pipeline/store/nearest.py",
    "pipeline/store/statistics.py",
    "pipeline/training",
    "pipeline/experiment/objective_set.py",
    "pipeline/experiment/run_folder.py",
    "pipeline/experiment/scoring.py",
)
CACHES = (
    "pipeline/experiment/experiment.py",
    "pipeline/experiment/pointers.py",
    "pipeline/store/local/__init__.py",
    "pipeline/store/local/backend.py",
    "pipeline/store/local/chunks.py",
)
COMPARED_CACHES = (*CACHES, "pipeline/experiment/reference.py", "pipeline/experiment/runs.py")
TRAINING_STUDENTS = (
    *LEARNING,
    *COMPARED_CACHES,
    "pipeline/experiment/caches.py",
    "pipeline/experiment/model_card.py",
    "pipeline/experiment/model_file.py",
    "pipeline/experiment/students.py",
    "stages/train_student.py",
)
CODE: dict[str, tuple[str, ...]] = {
    "prepare-data": (*PLUGINS, "pipeline/ahead.py", "pipeline/data/*.py", "stages/prepare_data.py"),
    "train-teacher": (
        *LEARNING,
        "pipeline/measuring/teacher_accuracy.py",
        "pipeline/objectives/methods/hard_label.py",
        "pipeline/experiment/experiment.py",
        "pipeline/experiment/teacher_runs.py",
        "stages/train_teacher.py",
    ),
    "cache-teacher": (
        *PARTS,
        *CACHES,
        "pipeline/measuring/__init__.py",
        "pipeline/measuring/teacher_accuracy.py",
        "pipeline/store/local/workspace.py",
        "pipeline/store/making",
        "stages/cache_teacher.py",
    ),
    "train-student": TRAINING_STUDENTS,
    "train-students": TRAINING_STUDENTS,
    "evaluate": (
        *PARTS,
        *MEASURING,
        *COMPARED_CACHES,
        "pipeline/experiment/details.py",
        "pipeline/experiment/embedding_scores.py",
        "pipeline/experiment/evaluator.py",
        "pipeline/inspection/__init__.py",
        "pipeline/inspection/strips.py",
        "pipeline/inspection/views.py",
        "pipeline/measuring/answers.py",
        "pipeline/measuring/teacher_accuracy.py",
        "pipeline/reporting/__init__.py",
        "pipeline/reporting/details.py",
        "pipeline/reporting/ownership.py",
        "pipeline/reporting/results.py",
        "pipeline/reporting/summary.py",
        "stages/evaluate.py",
    ),
    "report": (
        "pipeline/measuring/__init__.py",
        "pipeline/measuring/measured.py",
        "pipeline/measuring/score.py",
        "pipeline/reporting",
        "pipeline/experiment/runs.py",
        "stages/report.py",
    ),
}
"""What every stage imports, without plug-ins: files, folders with all below them, and `*.py` for the files of a folder
alone. A test runs the stages and compares. The command itself (`cli.py`, `commands`, `progress.py`, `allocator.py`,
`version.py`) is left out: it decides what is printed and how fast, never what is written."""


def written_in(raw: Any, key: str) -> bool:
    """Tell whether a configuration has a dotted key, instead of leaving it to its default.

    Args:
        raw: its plain values.
    """
    for part in key.split("."):
        if not isinstance(raw, dict) or part not in raw:
            return False
        raw = raw[part]
    return True


def code_of(command: str) -> list[str]:
    """Return the files and folders that a command of `CODE` imports, without plug-ins, and those of all commands."""
    found: list[str] = []
    for each in (*COMMON, *CODE[command]):
        folder, _, pattern = each.rpartition("/")
        here = SOURCE_ROOT / folder
        found += [f"{folder}/{path.name}" for path in here.glob(pattern)] if "*" in pattern else [each]
    return sorted(found)
