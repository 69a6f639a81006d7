"""What happened in every epoch, as a table for plots."""

from __future__ import annotations

import csv
import io

HOLDOUT = "holdout_top1"


class History:
    """A row per epoch: epoch, learning_rate, loss, a column per term, holdout_top1, images_per_second, seconds."""

    def __init__(self, rows: list[dict[str, float]] | None = None) -> None:
        self.rows = rows if rows is not None else []

    def add(self, row: dict[str, float]) -> None:
        """Append an epoch."""
        self.rows.append(row)

    def csv(self) -> str:
        """Comma-separated, with a header; a cell is empty where a row lacks the column."""
        columns: dict[str, None] = {}
        for row in self.rows:
            columns.update(dict.fromkeys(row))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, list(columns), lineterminator="\n", restval="")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({name: f"{value:.6g}" for name, value in row.items()})
        return stream.getvalue()
