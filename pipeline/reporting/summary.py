"""Summarises the results of an evaluation over seeds, for tables, plots and DVC."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.files import write_atomic
from pipeline.measuring.measured import Metrics
from pipeline.measuring.score import Score
from pipeline.reporting.results import Evaluation, StudentResult


class Stat(NamedTuple):
    """Holds a `mean` over seeds and the sample standard deviation, `spread`, which is None for one seed."""

    mean: float
    spread: float | None


@dataclass(frozen=True)
class SummaryRow:
    """Summarises one student and objective set over its seeds.

    Args:
        student, objectives, model: names.
        seeds: how many there are.
        ranked_by: the kind of `score`.
        nll, ece, agreement, kl: over seeds; None if not measured.
        knn, probe: of the embeddings.
        agreements: with the teachers that objectives name, by name; those alone that all seeds were compared with.
        parameters, macs: of the network.
        images_per_second, train_seconds: means; None if not measured.
    """

    student: str
    objectives: str
    model: str
    seeds: int
    ranked_by: Score
    score: Stat
    nll: Stat | None
    ece: Stat | None
    agreement: Stat | None
    kl: Stat | None
    knn: Stat | None
    probe: Stat | None
    agreements: dict[str, Stat]
    parameters: int
    macs: int
    images_per_second: float | None
    train_seconds: float | None


def summarise(evaluation: Evaluation) -> list[SummaryRow]:
    """Return a row for every student and objective set of an evaluation, in the order in which they first appear."""
    students = list(dict.fromkeys(s.student for s in evaluation.students))
    sets = list(dict.fromkeys(s.objectives for s in evaluation.students))
    groups: dict[tuple[str, str], list[StudentResult]] = {(a, b): [] for a in students for b in sets}
    for result in evaluation.students:
        groups[result.student, result.objectives].append(result)
    return [_row(group, evaluation.score) for group in groups.values() if group]


def compact(evaluation: Evaluation) -> str:
    """Return as JSON the few figures of an evaluation that `dvc metrics` and `dvc exp show` put into columns.

    The score in percent, such as top-1, of the teacher, and by student and objective set the mean over seeds.
    """
    figures: dict[str, Any] = {}
    if evaluation.teacher and (score := evaluation.teacher.value(evaluation.score)) is not None:
        figures["teacher"] = round(100 * score, 2)
    for row in summarise(evaluation):
        figures.setdefault(row.student, {})[row.objectives] = round(100 * row.score.mean, 2)
    return json.dumps(figures, indent=2) + "\n"


def write_evaluation(evaluation: Evaluation, path: Path, figures: Path) -> None:
    """Write an evaluation to the file `path`, and what DVC's tables show of it to the file `figures`."""
    write_atomic(figures, compact(evaluation))
    write_atomic(path, evaluation.to_text())


def _row(group: list[StudentResult], ranked_by: Score) -> SummaryRow:
    def over(field: Callable[[Metrics], float | None]) -> Stat | None:
        return _stat(field(result.metrics) for result in group)

    def embedded(name: str) -> Stat | None:
        return _stat(getattr(result.embedding, name, None) for result in group)

    def agreement_with(name: str) -> Stat | None:
        return _stat(result.agreements.get(name) for result in group)

    first = group[0]
    rate = _stat(result.images_per_second for result in group)
    seconds = _stat(result.train_seconds for result in group)
    return SummaryRow(
        student=first.student,
        objectives=first.objectives,
        model=first.model,
        seeds=len(group),
        ranked_by=ranked_by,
        score=_known(_stat(result.value(ranked_by) for result in group)),
        nll=over(lambda m: m.nll),
        ece=over(lambda m: m.ece),
        agreement=over(lambda m: m.agreement),
        kl=over(lambda m: m.kl),
        knn=embedded("knn"),
        probe=embedded("probe"),
        agreements={name: value for name in first.agreements if (value := agreement_with(name)) is not None},
        parameters=first.parameters,
        macs=first.macs,
        images_per_second=rate.mean if rate else None,
        train_seconds=seconds.mean if seconds else None,
    )


def _stat(values: Iterable[float | None]) -> Stat | None:
    """Return mean and spread, or None where a seed lacks the value: a mean over some of the seeds would mislead."""
    numbers = list(values)
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        return None
    return Stat(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None)


_T = TypeVar("_T")


def _known(value: _T | None) -> _T:
    assert value is not None  # every student has what it is ranked by
    return value
