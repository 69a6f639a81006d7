"""Chooses one colour for every objective set and one marker for every student, for all plots and tables.

Okabe and Ito's colours, which people with any colour vision can tell apart; the baseline is grey. From the
ninth set on, colours repeat with dashed lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.reporting.comparison import baseline_of
from pipeline.reporting.summary import SummaryRow

BASELINE = "#808080"
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
Dash = Literal["-", "--", ":", "-."]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.")
MARKERS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "<": "◀", ">": "▶", "h": "⬢"}
"""matplotlib's markers, and the characters that look like them."""
TEACHER_MARKER, TEACHER_GLYPH = "*", "★"


@dataclass(frozen=True)
class Styles:
    """Holds the styles of plots and tables.

    Args:
        colours, dashes: of objective sets, `#rrggbb` and matplotlib's line styles.
        markers: of students, matplotlib's.
    """

    colours: Mapping[str, str]
    dashes: Mapping[str, Dash]
    markers: Mapping[str, str]

    @classmethod
    def of(cls, rows: Sequence[SummaryRow]) -> Styles:
        """Choose styles for the sets and students of the rows, in their order."""
        baseline = baseline_of(rows)
        others = [name for name in dict.fromkeys(row.objectives for row in rows) if name != baseline]
        colours = {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(others)}
        dashes = {name: DASHES[i // len(OKABE_ITO) % len(DASHES)] for i, name in enumerate(others)}
        if baseline is not None:
            colours = {baseline: BASELINE, **colours}
            dashes = {baseline: "-", **dashes}
        markers = list(MARKERS)
        students = dict.fromkeys(row.student for row in rows)
        return cls(colours, dashes, {name: markers[i % len(markers)] for i, name in enumerate(students)})

    def glyph(self, student: str) -> str:
        """Return the character that looks like the marker of `student`."""
        return MARKERS[self.markers[student]]
