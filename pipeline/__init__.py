"""Runs a teacher once over a data set, and trains any number of students from its stored outputs.

The names below are for use from Python: docs/python.md explains them with examples. They are imported at their first
use, so that `import pipeline` is quick and does not load torch. docs/architecture.md says what lies where.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.api import (
        CachedViews,
        DatasetSplit,
        DistillationLoss,
        ModuleNetwork,
        TeacherNetwork,
        as_network,
        build_network,
        cache_teacher,
        make_views,
        objective,
        open_packed,
    )

__all__ = [
    "CachedViews",
    "DatasetSplit",
    "DistillationLoss",
    "ModuleNetwork",
    "TeacherNetwork",
    "as_network",
    "build_network",
    "cache_teacher",
    "make_views",
    "objective",
    "open_packed",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("pipeline.api"), name)
    raise AttributeError(f"module 'pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
