"""Draws the charts of the report: score over cost with its front, and learning curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.measuring.score import SCORES
from pipeline.progress import size
from pipeline.reporting import tables
from pipeline.reporting.drawing import Axis, Chart, linear_axis, log_axis
from pipeline.reporting.exports import ExportedStudent, ExportFigures
from pipeline.reporting.front import pareto_front
from pipeline.reporting.results import Evaluation, HistoryTable, TeacherResult
from pipeline.reporting.styles import TEACHER_MARKER, Styles
from pipeline.reporting.summary import SummaryRow

SCORED = {score.column: score for score in SCORES}
CURVES = (*SCORED, "loss")
"""Columns of a history that curves are drawn of."""

MOST_POINTS = 90
"""Epochs that a curve is drawn with: more would not be seen."""

SVG_DASHES = {"-": "", "--": "7 4", ":": "2 4", "-.": "8 4 2 4"}
"""Dashes and gaps in pixels, by the names of `Styles`."""

FAR = 3.0
"""A teacher that is this many times further away than students lie apart would flatten what differs between them."""

APART, MANY = 5.0, 40
"""Pixels between objective sets of one student, which cost the same; and how many rows are too many for that."""


Priced = TypeVar("Priced")


class Cost(NamedTuple, Generic[Priced]):
    """Describes a cost: its title, how to get it of something, None if it is not known, and how it is written."""

    title: str
    of: Callable[[Priced], float | None]
    text: Callable[[float], str]


COSTS: tuple[Cost[SummaryRow | TeacherResult], ...] = (
    Cost("multiply-accumulates per image", lambda each: each.macs or None, tables.count),
    Cost("parameters", lambda each: each.parameters or None, tables.count),
    Cost(
        "milliseconds per image, in large batches",
        lambda each: milliseconds(each.images_per_second),
        lambda value: f"{value:.3g} ms",
    ),
)
EXPORT_COSTS: tuple[Cost[ExportFigures], ...] = (
    Cost("bytes", lambda one: one.bytes, size),
    Cost("milliseconds for one image", lambda one: one.latency_ms.get(1), lambda value: f"{value:.3g} ms"),
)


def milliseconds(rate: float | None) -> float | None:
    """Return the time for an image at a rate of images per second; None if that is not known."""
    return 1000 / rate if rate else None


class Spot(NamedTuple):
    """Holds a mark over cost: score and spread are in percent, and more `worth` is better."""

    cost: float
    score: float
    worth: float
    spread: float | None
    colour: str
    shape: str
    name: str
    title: str
    aside: float = 0.0


def cost_charts(evaluation: Evaluation, rows: Sequence[SummaryRow], styles: Styles) -> list[Markup]:
    """Draw the score over every cost that is known, with the front of the students that no other one beats.

    Args:
        evaluation: has the teacher.
        rows: of the students.
        styles: of sets and students.
    """
    charts = []
    sets, apart = list(styles.colours), moved_apart(rows)
    for cost in COSTS:
        spots = []
        for row in rows:
            value = cost.of(row)
            if value is None:
                continue
            aside = (sets.index(row.objectives) - (len(sets) - 1) / 2) * APART if apart else 0.0
            title = f"{row.student}, {row.objectives}: {tables.stat(row.score, 100)} %, {cost.text(value)}"
            spread = None if row.score.spread is None else 100 * row.score.spread
            look = (styles.colours[row.objectives], styles.markers[row.student], row.student, title, aside)
            spots.append(Spot(value, 100 * row.score.mean, row.ranked_by.worth(row.score.mean), spread, *look))
        if spots:
            charts.append(_over_cost(spots, cost, evaluation))
    return charts


def moved_apart(rows: Sequence[SummaryRow]) -> bool:
    """Tell whether charts of costs move objective sets of a student apart, which cost the same.

    Args:
        rows: of the students.
    """
    return len({row.student for row in rows}) < len(rows) <= MANY


def export_charts(exports: Sequence[ExportedStudent], styles: Styles) -> list[Markup]:
    """Draw top-1 of every export over its bytes, and over the time of a pass of one image.

    Args:
        exports: of which those of other students than the evaluated ones are left out.
        styles: of sets and students.
    """
    known = [(each, one) for each in exports if not each.stale for one in each.formats]
    alone = len({(each.student, each.objectives, each.seed) for each, _ in known}) == 1
    charts = []
    for cost in EXPORT_COSTS:
        spots = []
        for each, one in known:
            if one.top1 is not None and (value := cost.of(one)):
                words = f"{each.student}, {each.objectives}, seed {each.seed} as {one.format}: {100 * one.top1:.2f} %"
                look = (styles.colours[each.objectives], styles.markers[each.student])
                name = one.format if alone else f"{each.student} {one.format}"
                spots.append(Spot(value, 100 * one.top1, one.top1, None, *look, name, f"{words}, {cost.text(value)}"))
        if len(spots) > 1:
            charts.append(_over_cost(spots, cost, None))
    return charts


def _over_cost(spots: Sequence[Spot], cost: Cost[Any], evaluation: Evaluation | None) -> Markup:
    teacher = evaluation.teacher if evaluation else None
    score = evaluation.score if evaluation else SCORES[0]
    value = teacher.value(score) if teacher else None
    price = cost.of(teacher) if teacher else None
    scores = [each.score for each in spots]
    apart = max(3.0, max(scores) - min(scores))
    far = value is not None and max(abs(100 * value - each) for each in scores) > FAR * apart
    heights = [each.score + sign * (each.spread or 0.0) for each in spots for sign in (-1, 1)]
    if value is not None and not far:
        heights.append(100 * value)
    costs = [each.cost for each in spots] + ([price] if price is not None and not far else [])
    chart = Chart(
        log_axis(costs, size if cost.text is size else _tick), linear_axis(heights, 3), cost.title, score.heading
    )
    front = pareto_front([(each.cost, each.worth) for each in spots])
    steps: list[tuple[float, float]] = []
    for place in front:
        if steps:
            steps.append((spots[place].cost, steps[-1][1]))
        steps.append((spots[place].cost, spots[place].score))
    if value is not None and far:
        chart.note(f"the teacher's {100 * value:.2f} % is beyond this axis")
    elif value is not None:
        ends = ((chart.x.low, 100 * value), (chart.x.high, 100 * value))
        chart.line(ends, dash="5 4", width=1)
    chart.line([*steps, (chart.x.high, steps[-1][1])], "var(--accent)", width=1.3)
    for place, spot in enumerate(spots):
        if place not in front:
            looks = {"shape": spot.shape, "title": spot.title, "spread": spot.spread, "aside": spot.aside}
            chart.mark(spot.cost, spot.score, spot.colour, size=4.2, faint=True, **looks)  # type: ignore[arg-type]
    for spot in (spots[place] for place in front):
        looks = {"shape": spot.shape, "title": spot.title, "spread": spot.spread, "aside": spot.aside}
        chart.mark(spot.cost, spot.score, spot.colour, size=5.6, **looks)  # type: ignore[arg-type]
    if teacher and value is not None and price is not None and not far:
        title = f"teacher {teacher.model}: {100 * value:.2f} %, {cost.text(price)}"
        chart.mark(price, 100 * value, "currentColor", shape=TEACHER_MARKER, title=title, size=6)
        chart.label(price, 100 * value, "teacher")
    for spot in (spots[place] for place in reversed(front)):
        chart.label(spot.cost, spot.score, _shortened(spot.name), spot.aside)
    return chart.svg(f"{score.title} over {cost.title}")


class Curves(NamedTuple):
    """Holds the learning curves of one student: its name, and a chart for each kind."""

    student: str
    charts: list[Markup]


def learning_charts(students: Sequence[str], histories: Sequence[HistoryTable], styles: Styles) -> list[Curves]:
    """Draw score on the holdout and loss over epochs, for every student that has a history.

    The line is the mean over seeds, the band one sample standard deviation. Without a holdout only the loss is drawn.
    All charts of a kind have one vertical axis.

    Args:
        students: names, in their order.
        histories: of all runs.
        styles: of the sets.
    """
    curves: dict[str, dict[str, dict[str, NDArray[np.float64]]]] = {kind: {} for kind in CURVES}
    for kind in CURVES:
        for student in students:
            for objectives in styles.colours:
                mine = [h for h in histories if (h.student, h.objectives) == (student, objectives)]
                if (found := _over_seeds(mine, kind)) is not None:
                    curves[kind].setdefault(student, {})[objectives] = found
    axes = {kind: _axis(kind, [line for lines in found.values() for line in lines.values()])
            for kind, found in curves.items() if found}  # fmt: skip
    last = max(
        (line[0, -1] for found in curves.values() for lines in found.values() for line in lines.values()), default=1
    )
    across = linear_axis([1.0, max(float(last), 2.0)], 1, lambda value: f"{value:g}" if value >= 0 else "")
    drawn = []
    for student in students:
        charts = [
            _curve_chart(student, kind, lines, styles, across, axes[kind])
            for kind, found in curves.items()
            if (lines := found.get(student))
        ]
        if charts:
            drawn.append(Curves(student, charts))
    return drawn


def _curve_chart(
    student: str, kind: str, lines: Mapping[str, NDArray[np.float64]], styles: Styles, across: Axis, axis: Axis
) -> Markup:
    what = f"holdout {SCORED[kind].heading}" if kind in SCORED else "training loss"
    chart = Chart(across, axis, "epoch", what)
    for objectives, (epochs, mean, spread) in lines.items():
        colour = styles.colours[objectives]
        floor = axis.low if axis.log else -np.inf
        if spread.any():
            chart.band([(x, max(m - s, floor), m + s) for x, m, s in zip(epochs, mean, spread, strict=True)], colour)
        if len(epochs) == 1:
            chart.mark(epochs[0], mean[0], colour, size=3.5, title=objectives)
        chart.line(list(zip(epochs, mean, strict=True)), colour, SVG_DASHES[styles.dashes[objectives]])
    return chart.svg(f"{what} of {student} over epochs")


def _over_seeds(histories: Sequence[HistoryTable], kind: str) -> NDArray[np.float64] | None:
    """Return epochs, mean and spread over seeds, [3, n]; None if the value was not measured."""
    seeds = []
    for history in histories:
        values = history.column(kind) * (100 if kind in SCORED else 1)
        there = np.isfinite(values)
        seeds.append(np.stack([history.columns["epoch"][there], values[there]]))
    length = min((seed.shape[1] for seed in seeds), default=0)
    if not length:
        return None
    values = np.stack([seed[1, :length] for seed in seeds])
    spread = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.zeros(length)
    kept = np.unique(np.linspace(0, length - 1, min(length, MOST_POINTS)).round().astype(int))
    drawn: NDArray[np.float64] = np.stack([seeds[0][0, :length], values.mean(axis=0), spread])[:, kept]
    return drawn


def _axis(kind: str, lines: Sequence[NDArray[np.float64]]) -> Axis:
    """Return the axis of a kind: of accuracies from their level after a fifth of training on, of losses the whole."""
    if kind in SCORED:
        shown = [line[1, line.shape[1] // 5 :] if line.shape[1] >= 10 else line[1] for line in lines]
        return linear_axis(np.concatenate(shown).tolist(), 3)
    values = np.concatenate([line[1] for line in lines])
    if 0 < values.min() < values.max() / 20:  # losses of different sets lie far apart
        return log_axis(values.tolist(), lambda value: f"{value:.3g}")
    return linear_axis(values.tolist(), 0.1)


def _tick(value: float) -> str:
    if value < 1:
        return f"{value:.2g}"
    number, _, prefix = tables.count(value).partition(" ")
    return f"{float(number):g} {prefix}".strip()


def _shortened(name: str, most: int = 22) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
