"""Records learning rate, losses and accuracy of every epoch, as a table for plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

from pipeline.measuring.score import TOP1, Score

LOSS_GROWS, TERM_GROWS = 2.0, 3.0
"""How many times the least of all epochs the loss of the last one is, and a term of it, where the training diverges."""


class History:
    """Holds one row per epoch: epoch, learning_rate, loss, each term, the score, images_per_second, seconds.

    Args:
        rows: of a run that is resumed; None for none.
        score: what epochs are ranked by, in its column.
    """

    def __init__(self, rows: list[dict[str, float]] | None = None, score: Score = TOP1) -> None:
        self.rows, self.score = rows if rows is not None else [], score

    def add(self, row: dict[str, float]) -> None:
        """Append the `row` of an epoch."""
        self.rows.append(row)

    def best(self) -> int:
        """Return the epoch with the best score on the holdout, the first of several; 0 if none was measured."""
        column = self.score.column
        scores = [self.score.worth(row[column]) if column in row else float("-inf") for row in self.rows]
        best = max(scores, default=float("-inf"))
        return scores.index(best) + 1 if best > float("-inf") else 0

    def stale(self, patience: int | None) -> bool:
        """Tell whether the last `patience` epochs were no better than the best before them; False for None."""
        return patience is not None and 0 < self.best() <= len(self.rows) - patience

    def csv(self) -> str:
        """Return comma-separated values with a header; a cell is empty where a row lacks the column."""
        columns: dict[str, None] = {}
        for row in self.rows:
            columns.update(dict.fromkeys(row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n", restval="")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: cell_of(value) for name, value in row.items()})
        return stream.getvalue()


def cell_of(value: float) -> str:
    """Write a number as the table of a history has it, of six digits.

    Args:
        value: of a row.
    """
    return f"{value:.6g}"


def epoch_note(history: History, epochs: int, means: Mapping[str, float], weights: Mapping[str, float]) -> str:
    """Say how the last epoch went: the loss, the weight and mean of every term, and the holdout so far.

    Args:
        history: ends with that epoch.
        epochs: of the training.
        means: of the epoch: the loss, and every term by `label/term`.
        weights: of the objectives, by their labels, at the end of the epoch.
    """
    row, column = history.rows[-1], history.score.column
    grown = diverging(history.rows)
    terms = [
        f"{weights[label]:.3g} x {value:.4g} {term}"
        for term, value in means.items()
        if (label := term.rpartition("/")[0]) in weights and term != "loss"
    ]
    note = f"epoch {row['epoch']:.0f}/{epochs} loss {means['loss']:.4f}"
    if len(terms) > 1:
        dropping = any(term.startswith("dropped/") for term in means)  # then the sum is another in every step
        note += (", teachers left out at random of " if dropping else " = ") + " + ".join(terms)
    if grown:
        note += f"; {grown}"
    if column in row:
        note += f", holdout {history.score.text(row[column])}"
        best = history.best()
        if best and best != len(history.rows):
            then = history.rows[best - 1]
            note += f", best {history.score.text(then[column])} in epoch {then['epoch']:.0f}"
    return note


def diverging(rows: Sequence[Mapping[str, float]]) -> str:
    """Say which terms have grown, where the loss of the last epoch is far above the least of all; empty where not.

    Args:
        rows: of the epochs, as of `History`.

    The loss alone is no sign: the weight of a term may be raised on purpose. Nor is a term alone: one that is nearly
    nothing may grow many times. So both are asked.
    """
    losses = [row["loss"] for row in rows if "loss" in row]
    if not losses or not losses[-1] > LOSS_GROWS * min(losses) > 0:
        return ""
    last = rows[-1]
    grown = []
    for term in (column for column in last if "/" in column and not column.startswith("dropped/")):
        known = {int(row["epoch"]): row[term] for row in rows if row.get(term, 0.0) > 0}
        least = min(known, key=known.__getitem__, default=0)
        if known and last[term] > TERM_GROWS * known[least]:
            grown.append(f"{term} grew from {known[least]:.4g} in epoch {least} to {last[term]:.4g}")
    return ", ".join(grown)
