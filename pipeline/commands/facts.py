"""Collects what the commands that run a stage print with `--json`, from what the stage wrote.

Imported after the stage has run: the digest of a run's code is of the modules that are imported by then.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.data import DataSection
from pipeline.errors import DataError
from pipeline.experiment.run_folder import METRICS, METRICS_MAX_BYTES
from pipeline.experiment.runs import RunName, RunsSection
from pipeline.experiment.sections import cache_paths
from pipeline.experiment.source import ConfigFile
from pipeline.inspection.summary import Facts, describe
from pipeline.inspection.worth import with_worth
from pipeline.reporting.comparison import verdicts
from pipeline.reporting.report import summary
from pipeline.reporting.results import RESULTS_MAX_BYTES, Evaluation
from pipeline.reporting.summary import summarise
from pipeline.store.config import StoreSection
from pipeline.untrusted import parse_json, read_file


class _Runs(RunsSection):
    """Declares the section that says where runs are."""


class _Caches(DataSection, StoreSection):
    """Declares the sections that say which caches there are."""


def teacher_facts(source: ConfigFile) -> Facts:
    """Return the file of the teacher's weights, and the metrics of its training; None where nothing is trained.

    Args:
        source: the configuration.
    """
    raw = source.raw()
    weights = raw.get("teacher", {}).get("weights")
    trained = raw.get("teacher_training") is not None
    return {"weights": weights, "metrics": _metrics(Path(str(weights)).parent) if trained else None}


def made_caches(source: ConfigFile, part: str) -> dict[str, Facts]:
    """Return what `inspect` says of each cache that `cache-teacher` makes, by what it is for.

    Args:
        source: the configuration.
        part: as of the command.
    """
    inputs = source.read(_Caches)
    wanted = {"all": ("training", "holdout", "evaluation"), "training": ("training",)}
    wanted["evaluation"] = ("holdout", "evaluation")
    held = inputs.data.holdout is not None
    paths = {name: path for name, path in cache_paths(inputs.store.path).items() if name in wanted[part]}
    return {name: with_worth(describe(path)[0]) for name, path in paths.items() if held or name != "holdout"}


def student_facts(source: ConfigFile, name: RunName, output: Path | None) -> Facts:
    """Return the folder of a student and the metrics of its training.

    Args:
        source: the configuration.
        name: of the run.
        output: its folder; None for that of `runs.path`.
    """
    folder = output or source.read(_Runs).runs.student(*name)
    return {"folder": folder.as_posix(), "metrics": _metrics(folder)}


def evaluation_facts(source: ConfigFile) -> Facts:
    """Return what `evaluate` wrote: the content of `evaluation.json`.

    Args:
        source: the configuration.
    """
    found: Facts = parse_json(read_file(source.read(_Runs).runs.evaluation, RESULTS_MAX_BYTES, follow=True))
    return found


def report_facts(source: ConfigFile, *, written: bool) -> Facts:
    """Return the page, the numbers of its table by student and objective set, and the sentences that compare the sets.

    Args:
        source: the configuration.
        written: whether there is a page.
    """
    runs = source.read(_Runs).runs
    evaluation = Evaluation.read(runs.evaluation)
    rows = summarise(evaluation)
    page = (runs.report / "report.html").as_posix() if written else None
    return {"page": page, "split": evaluation.split, **summary(evaluation, rows), "verdicts": verdicts(rows)}


def _metrics(folder: Path) -> Facts:
    try:
        found: Facts = parse_json(read_file(folder / METRICS, METRICS_MAX_BYTES, follow=True))
    except ValueError as error:
        raise DataError("the metrics of a run cannot be read", where=folder / METRICS, got=error) from None
    return found
