"""Draws a sweep: the curves of its tries, and their scores against each constant."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.measuring.score import SCORES, TOP1
from pipeline.reporting.render import INK, png
from pipeline.reporting.styles import BASELINE, OKABE_ITO
from pipeline.sweeping.axes import Range
from pipeline.sweeping.space import SearchSpace
from pipeline.sweeping.tries import Try, best_of

MOST_PANELS = 6
"""Constants that are drawn at most."""

BEST, OTHER = OKABE_ITO[1], OKABE_ITO[0]


def drawn(title: str, space: SearchSpace, tries: Sequence[Try]) -> bytes:
    """Return a PNG: the scores of every try after each epoch, and the last ones against each constant.

    Args:
        title: of the picture.
        space: what varied.
        tries: those with a score are drawn; stopped ones in grey, with their best score so far.
    """
    tries = [one for one in tries if one.curve]
    best, keys = best_of(tries), list(space.axes)[:MOST_PANELS]
    named = next((one.scored for one in tries if one.scored), TOP1.name)
    score = next((each for each in SCORES if each.name == named), TOP1)
    figure = Figure(figsize=(4.2 * (1 + len(keys)), 3.8), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK, parse_math=False)
    panels = figure.subplots(1, 1 + len(keys), squeeze=False)[0]
    for one in tries:
        colour, front = _style(one, best)
        epochs, values = range(1, len(one.curve) + 1), [100 * value for value in one.curve]
        panels[0].plot(epochs, values, color=colour, zorder=front, linewidth=2 if front == 3 else 1, marker=".")
    panels[0].set_xlabel("epoch")
    panels[0].set_ylabel(f"holdout {score.heading}")
    panels[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for panel, key in zip(panels[1:], keys, strict=True):
        axis = space.axes[key]
        for one in tries:
            colour, front = _style(one, best)
            value = one.values[key]
            place = value if isinstance(axis, Range) else axis.values.index(value)
            mark = "x" if one.state == "stopped" else "o"
            reached = max(one.curve) if one.score is None else one.score
            panel.plot([place], [100 * reached], mark, color=colour, zorder=front)
        if not isinstance(axis, Range):
            panel.set_xticks(range(len(axis.values)), [str(value) for value in axis.values])
        elif axis.log:
            panel.set_xscale("log")
        panel.set_xlabel(key, parse_math=False)
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.25)
    return png(figure)


def _style(one: Try, best: Try | None) -> tuple[str, int]:
    """Return the colour of a try, and how far in front it lies."""
    if best is not None and one.number == best.number:
        return BEST, 3
    return (BASELINE, 1) if one.state != "finished" else (OTHER, 2)
