"""Evaluation: accuracy, calibration, fidelity and cost of networks, and the report that shows them.

Modules are imported when one of their names is first used (hence no module is called like a name in it). A
training run measures its holdout with `measure`; it must not depend on the report's page and plots, or DVC would
rerun every student when a colour changes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.evaluation.comparison import Comparison as Comparison
    from pipeline.evaluation.comparison import compare as compare
    from pipeline.evaluation.comparison import verdicts as verdicts
    from pipeline.evaluation.cost import Rate as Rate
    from pipeline.evaluation.cost import images_per_second as images_per_second
    from pipeline.evaluation.cost import macs as macs
    from pipeline.evaluation.cost import parameters as parameters
    from pipeline.evaluation.metrics import Metrics as Metrics
    from pipeline.evaluation.metrics import measure as measure
    from pipeline.evaluation.prediction import predict as predict
    from pipeline.evaluation.report import write_report as write_report
    from pipeline.evaluation.results import Evaluation as Evaluation
    from pipeline.evaluation.results import History as History
    from pipeline.evaluation.results import Row as Row
    from pipeline.evaluation.results import RunMetrics as RunMetrics
    from pipeline.evaluation.results import Stat as Stat
    from pipeline.evaluation.results import StudentResult as StudentResult
    from pipeline.evaluation.results import TeacherResult as TeacherResult
    from pipeline.evaluation.results import read_evaluation as read_evaluation
    from pipeline.evaluation.results import read_histories as read_histories
    from pipeline.evaluation.results import read_run as read_run
    from pipeline.evaluation.results import summarise as summarise
    from pipeline.evaluation.tables import markdown as markdown
    from pipeline.evaluation.tables import terminal as terminal

_MODULES = {
    "cost": "Rate images_per_second macs parameters",
    "metrics": "Metrics measure",
    "prediction": "predict",
    "report": "write_report",
    "results": "Evaluation History Row RunMetrics Stat StudentResult TeacherResult read_evaluation "
    "read_histories read_run summarise",
    "tables": "markdown terminal",
    "comparison": "Comparison compare verdicts",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
