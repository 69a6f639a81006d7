"""Keeps what is known of every try in a file of its own: a process that is killed loses none of the others'."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import CacheCorrupt
from pipeline.files import write_atomic
from pipeline.sweeping.space import Constants
from pipeline.untrusted import parse_json, read_file

TRY_MAX_BYTES = 16 << 20
"""The most bytes of a try's file or history."""

State = Literal["begun", "finished", "stopped", "failed"]

BROKEN_TRY_HINT = "delete the file, and the try is made again"


@dataclass(frozen=True)
class Try:
    """Describes a try.

    Args:
        number: from 0.
        values: its constants, by key.
        state: `begun`, also of one that was interrupted; `finished`; `stopped` early, as hopeless; `failed`.
        curve: the score on the holdout after every epoch, in [0, 1].
        score: that of the student that is kept; None if none is.
        scored: the name of that score, such as `top1`.
        processor_seconds: that its processes took, those that load images among them when they have ended.
        error: why it failed; None if it did not.
    """

    number: int
    values: Constants
    state: State = "begun"
    curve: tuple[float, ...] = ()
    score: float | None = None
    scored: str = ""
    processor_seconds: float = 0.0
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "curve": list(self.curve), "epochs": len(self.curve)}

    def text(self) -> str:
        """Return its constants in a line."""
        return ", ".join(f"{key} {_short(value)}" for key, value in self.values.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


class Tries:
    """Reads and writes the tries of a sweep, below its folder.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "tries"

    def file(self, number: int) -> Path:
        """Return the file of a try.

        Args:
            number: of the try.
        """
        return self.folder / f"{number:04}.json"

    def student(self, number: int) -> Path:
        """Return the folder of a try's student.

        Args:
            number: of the try.
        """
        return self.folder / f"{number:04}"

    def write(self, one: Try) -> None:
        """Write the file of a try, durably and all at once.

        Args:
            one: the try.
        """
        write_atomic(self.file(one.number), json.dumps(one.to_json()) + "\n")

    def read(self) -> list[Try]:
        """Read all tries, by number. Raises CacheCorrupt for a file that holds none."""
        return [_read(file) for file in self.files()]

    def files(self) -> list[Path]:
        """Return the files that there are, by the numbers of their tries."""
        return sorted(self.folder.glob("[0-9]*.json"), key=lambda file: (len(file.stem), file.stem))


def _read(file: Path) -> Try:
    try:
        values = parse_json(read_file(file, TRY_MAX_BYTES))
        values.pop("epochs", None)
        one = Try(**{**values, "curve": tuple(map(float, values["curve"]))})
        if one.number != int(file.stem) or one.state not in ("begun", "finished", "stopped", "failed"):
            raise ValueError(f"try {one.number}, {one.state}")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CacheCorrupt("this is no try of a sweep", where=file, got=str(error), fix=BROKEN_TRY_HINT) from None
    return one


def finished(one: Try, student: Path, patience: int | None) -> Try:
    """Return a try whose student is there, with the curve and the score of its history.

    Args:
        one: the try.
        student: the folder of the student.
        patience: as of the training: with it the weights of the best epoch are kept, else those of the last.
    """
    rows = list(csv.DictReader(read_file(student / "history.csv", TRY_MAX_BYTES).decode().splitlines()))
    column = next((name for name in rows[0] if name.startswith("holdout_")), None) if rows else None
    curve = tuple(float(row[column]) for row in rows) if column is not None else ()
    score = (max(curve) if patience is not None else curve[-1]) if curve else None
    scored = (column or "").removeprefix("holdout_")
    return replace(one, state="finished", curve=curve, score=score, scored=scored, error=None)


def best_of(tries: Sequence[Try]) -> Try | None:
    """Return the finished try with the best score, the first of several; None if none is finished.

    Args:
        tries: of a sweep.
    """
    scored = [one for one in tries if one.state == "finished" and one.score is not None]
    return max(scored, key=lambda one: one.score or 0.0, default=None)
