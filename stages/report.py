"""Writes one page with tables and plots, and prints the table: the stage `report`."""

from __future__ import annotations

from rich.console import Console

from pipeline.errors import DataError
from pipeline.experiment.runs import RunsSection
from pipeline.experiment.source import ConfigFile
from pipeline.reporting.answer import ship_sentence
from pipeline.reporting.comparison import verdicts
from pipeline.reporting.details import read_details
from pipeline.reporting.exports import read_exports
from pipeline.reporting.page import Findings
from pipeline.reporting.report import write_report
from pipeline.reporting.results import Evaluation, read_histories
from pipeline.reporting.summary import summarise
from pipeline.reporting.tables import terminal
from pipeline.yaml_text import to_yaml


class Inputs(RunsSection):
    """Declares the sections that this stage reads."""


def run(source: ConfigFile, *, write: bool, table: bool) -> None:
    """Write the report from the results of `evaluate` and of the runs, and print its table.

    Args:
        source: the configuration.
        write: whether to write the report's folder.
        table: whether to print the table.
    """
    raw = source.raw()
    runs = source.read(Inputs, raw).runs
    page = runs.report / "report.html"
    if not runs.evaluation.exists():
        raise DataError("nothing is evaluated yet", where=runs.evaluation, fix="run `pipeline evaluate`")
    evaluation = Evaluation.read(runs.evaluation)
    rows = summarise(evaluation)
    if write:
        histories, exports = read_histories(runs.path / "students"), read_exports(runs.path, evaluation)
        details = read_details(runs.details, evaluation)
        page = write_report(runs.report, Findings(evaluation, histories, to_yaml(raw), exports, details))
    if table:
        console = Console(width=None if Console().is_terminal else 160)
        console.print(terminal(evaluation, rows))
        for sentence in [*verdicts(rows), *ship_sentence(evaluation, rows)]:
            console.print(f"  {sentence}", highlight=False, markup=False, soft_wrap=True)
    if page.exists():
        print(f"report: {page}")
