"""Draws the overview of a report: accuracy against cost beside learning curves, as a picture for a README.

Figures are drawn without pyplot and without its global state.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from pipeline.reporting import tables
from pipeline.reporting.charts import CURVES, SCORED
from pipeline.reporting.render import INK
from pipeline.reporting.results import Evaluation, HistoryTable
from pipeline.reporting.styles import TEACHER_MARKER, Styles
from pipeline.reporting.summary import SummaryRow

Canvas = Figure | SubFigure
ACROSS = 3
LONGEST_NAME = 28


def overview(evaluation: Evaluation, rows: Sequence[SummaryRow], histories: Sequence[HistoryTable]) -> Figure:
    """Draw accuracy against cost beside the learning curves, for a README: 14 inches wide.

    Args:
        evaluation: has the teacher.
        rows: of the students.
        histories: of all runs.
    """
    figure = Figure(figsize=(14, 5.8), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    styles = Styles.of(rows)
    kind = next((kind for kind in CURVES if _has(histories, kind)), None)
    if kind is None:
        draw_costs(figure, styles, evaluation, rows)
    else:
        halves = figure.add_gridspec(1, 2, width_ratios=(1, 1.15), wspace=0.04)
        left, right = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
        draw_costs(left, styles, evaluation, rows)
        students = _students(rows, histories)
        across = len(students) if len(students) <= ACROSS else math.ceil(math.sqrt(len(students)))
        draw_curves(right, styles, students, histories, [kind], across)
    _legend(figure, styles, _sets(rows), list(styles.markers))
    return figure


def draw_curves(
    canvas: Canvas,
    styles: Styles,
    students: Sequence[str],
    histories: Sequence[HistoryTable],
    kinds: Sequence[str],
    across: int,
) -> None:
    """Draw one panel for every student and kind of curve; panels of one kind share their vertical axis.

    Kinds stand below each other, those of a single student side by side.

    Args:
        canvas: to draw on.
        styles: of the sets.
        students: names.
        histories: of all runs.
        kinds: columns of the histories, such as that of the score (`Score.column`) and `loss`.
        across: panels side by side.
    """
    alone = len(students) == 1
    blocks = math.ceil(len(students) / across)
    grid = canvas.add_gridspec(*((1, len(kinds)) if alone else (blocks * len(kinds), across)))
    for k, kind in enumerate(kinds):
        panels: list[Axes] = []
        for i, student in enumerate(students):
            place = grid[0, k] if alone else grid[i // across * len(kinds) + k, i % across]
            panel = canvas.add_subplot(place, sharey=panels[0] if panels else None)
            panels.append(panel)
            for objectives in styles.colours:
                mine = [h for h in histories if (h.student, h.objectives) == (student, objectives)]
                _curve(panel, styles, objectives, [_points(h, kind) for h in mine])
            _dress(panel)
            panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            _widen(panel, "x", 2)
            if k == 0 or alone:
                panel.set_title(_short(student), fontsize=10, color=INK, parse_math=False)
            if k == len(kinds) - 1 or alone:
                panel.set_xlabel("epoch")
            if i % across == 0:
                panel.set_ylabel(f"holdout {SCORED[kind].heading}" if kind in SCORED else "training loss")
            else:
                panel.tick_params(labelleft=False)
        values = [values for panel in panels for line in panel.lines if len(values := np.asarray(line.get_ydata()))]
        if kind == "loss":
            _log_if_wide(panels[0], values)
        else:
            _zoom(panels[0], values)


def draw_costs(canvas: Canvas, styles: Styles, evaluation: Evaluation, rows: Sequence[SummaryRow]) -> None:
    """Draw the score over cost. Sets of one student cost the same; they stand side by side to stay legible.

    Args:
        canvas: to draw on.
        styles: of sets and students.
        evaluation: has the teacher.
        rows: of the students.
    """
    panel = canvas.add_subplot()
    teacher = evaluation.teacher
    by_macs = teacher is None or teacher.macs is not None or teacher.parameters is None
    costs = [row.macs if by_macs else row.parameters for row in rows]
    teacher_cost = (teacher.macs if by_macs else teacher.parameters) if teacher else None
    known = [cost for cost in [*costs, teacher_cost] if cost]
    low, high = (min(known), max(known)) if known else (1, 1)
    margin = max((high / low) ** 0.12, 1.6 if high == low else 1.15)
    panel.set_xscale("log")
    panel.set_xlim(low / margin, high * margin)
    step = math.log(high * margin**2 / low) * 0.011
    sets = list(styles.colours)
    for row, cost in zip(rows, costs, strict=True):
        shift = math.exp((sets.index(row.objectives) - (len(sets) - 1) / 2) * step)
        panel.errorbar(
            cost * shift,
            100 * row.score.mean,
            yerr=100 * row.score.spread if row.score.spread is not None else None,
            color=styles.colours[row.objectives],
            marker=styles.markers[row.student],
            markersize=7,
            markeredgewidth=0.8 if styles.dashes[row.objectives] == "-" else 1.4,
            fillstyle="full" if styles.dashes[row.objectives] == "-" else "none",
            linestyle="none",
            elinewidth=1.3,
        )
    if teacher and (value := teacher.value(evaluation.score)) is not None:
        height = 100 * value
        panel.axhline(height, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
        if teacher_cost:
            panel.plot(teacher_cost, height, TEACHER_MARKER, color=INK, markersize=13)
        label = f"teacher {_short(teacher.model)}"
        panel.annotate(
            label, (0.99, height), xycoords=("axes fraction", "data"), xytext=(0, 9), textcoords="offset points",
            horizontalalignment="right", fontsize=9, color=INK, parse_math=False,
        )  # fmt: skip
    _dress(panel)
    panel.margins(y=0.12)
    _widen(panel, "y", 3)
    decades = math.log10(high * margin**2 / low)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2.5 else (1,), numticks=12))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    panel.set_xlabel("multiply-accumulates per image" if by_macs else "parameters")
    panel.set_ylabel(f"{evaluation.score.title} on {_short(evaluation.split)} (%)", parse_math=False)


def _points(history: HistoryTable, kind: str) -> NDArray[np.float64]:
    """Return epochs and values [2, n] of the epochs at which the value was measured."""
    values = history.column(kind) * (100 if kind in SCORED else 1)
    there = np.isfinite(values)
    return np.stack([history.columns["epoch"][there], values[there]])


def _curve(panel: Axes, styles: Styles, objectives: str, seeds: Sequence[NDArray[np.float64]]) -> None:
    length = min((points.shape[1] for points in seeds), default=0)
    if not length:
        return
    epochs = seeds[0][0, :length]
    values = np.stack([points[1, :length] for points in seeds])
    mean = values.mean(axis=0)
    colour = styles.colours[objectives]
    marker = "o" if length == 1 else ""
    panel.plot(epochs, mean, styles.dashes[objectives], color=colour, linewidth=1.6, marker=marker)
    if len(seeds) > 1:
        spread = values.std(axis=0, ddof=1)
        panel.fill_between(epochs, mean - spread, mean + spread, color=colour, alpha=0.18, linewidth=0)


def _has(histories: Sequence[HistoryTable], kind: str) -> bool:
    return any(bool(np.isfinite(history.column(kind)).any()) for history in histories)


def _students(rows: Sequence[SummaryRow], histories: Sequence[HistoryTable]) -> list[str]:
    """Return the students that have a history, in the order of the rows."""
    there = {history.student for history in histories}
    return [name for name in dict.fromkeys(row.student for row in rows) if name in there]


def _sets(rows: Sequence[SummaryRow]) -> list[str]:
    return list(dict.fromkeys(row.objectives for row in rows))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _log_if_wide(panel: Axes, lines: Sequence[NDArray[np.float64]]) -> None:
    """Use a log axis if losses of different objectives lie far apart, so that it shows them all."""
    low, high = min(line.min() for line in lines), max(line.max() for line in lines)
    if 0 < low < high / 20:
        panel.set_yscale("log")


def _zoom(panel: Axes, lines: Sequence[NDArray[np.float64]]) -> None:
    """Show long curves from their level after a fifth of training on: the steep beginning would flatten the rest."""
    low = min(line[len(line) // 5 :].min() if len(line) >= 10 else line.min() for line in lines)
    high = max(line.max() for line in lines)
    margin = 0.05 * (high - low) + 0.5
    panel.set_ylim(max(low - margin, -1.0), high + margin)


def _widen(panel: Axes, axis: Literal["x", "y"], least: float) -> None:
    """Widen an axis to span at least `least`, so that small differences do not look large."""
    low, high = panel.get_xlim() if axis == "x" else panel.get_ylim()
    if high - low < least:
        middle = (low + high) / 2
        panel.set(**{f"{axis}lim": (middle - least / 2, middle + least / 2)})


def _dress(panel: Axes) -> None:
    """Style the frame: no box, faint lines, text in the page's colour."""
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.spines["bottom"].set(color=INK, alpha=0.4)
    panel.grid(axis="y", color=INK, alpha=0.13, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(length=0, labelsize=9, labelcolor=INK)
    panel.xaxis.label.set(color=INK, fontsize=9.5)
    panel.yaxis.label.set(color=INK, fontsize=9.5)


def _tick(value: float) -> str:
    number, _, prefix = tables.count(value).partition(" ")
    return f"{float(number):g} {prefix}"


def _legend(figure: Figure, styles: Styles, sets: Sequence[str], students: Sequence[str]) -> None:
    """Draw a legend below the plots: colours of objective sets, then markers of students where there are several."""
    handles = [Line2D([], [], color=styles.colours[s], linestyle=styles.dashes[s], linewidth=3) for s in sets]
    names = list(sets)
    if len(students) > 1:
        handles += [
            Line2D([], [], color=INK, alpha=0.75, linestyle="none", marker=styles.markers[s], markersize=7)
            for s in students
        ]
        names += students
    numbers = [str(i) for i in range(len(names))]
    legend = figure.legend(
        handles, numbers, loc="outside lower center", ncols=min(len(names), 6), frameon=False, fontsize=9
    )
    # Set afterwards: a legend drops labels that start with an underscore, and reads $ as the start of a formula.
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set(text=_short(name), color=INK, parse_math=False)
