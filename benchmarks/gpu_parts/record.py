"""Takes down what a part measures: figures of every round, facts, and what was left out with the reason."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import first_line
from pipeline.files import write_atomic

NOT_THESE = "not with these sizes"
"""Why rows are left out that are only tried."""

Line = dict[str, Any]
"""What is taken down at once, as plain JSON values."""


class Note:
    """Is given to a part, which takes down in it what it finds.

    Args:
        take: takes each line.
        seconds: from now to the part's deadline.
        left_out: words of rows that are not measured with these sizes.
    """

    def __init__(self, take: Callable[[Line], None], seconds: float, left_out: Sequence[str] = ()) -> None:
        self._take, self._end, self._left_out = take, time.monotonic() + seconds, tuple(left_out)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._end - time.monotonic()

    def measure(self, name: str, unit: str, values: Sequence[float]) -> None:
        """Take down a figure of every round; one that is not finite is none."""
        if all(math.isfinite(each) for each in values):
            self._take({"measure": name, "unit": unit, "values": list(values)})
        else:
            self.skip(name, f"not finite: {', '.join(map(str, values))}")

    def rate(self, name: str, unit: str, amount: float, seconds: Sequence[float]) -> None:
        """Take down how much was done per second in every round."""
        self.measure(name, unit, [amount / each for each in seconds])

    def ratio(self, name: str, over: Sequence[float], under: Sequence[float]) -> None:
        """Take down the quotient of two figures of every round."""
        self.measure(name, "x", [a / b for a, b in zip(over, under, strict=True)])

    def fact(self, name: str, value: bool | int | str | list[str]) -> None:
        """Take down what has no spread."""
        self._take({"fact": name, "value": value})

    def skip(self, name: str, reason: str) -> None:
        """Take down that something was left out."""
        self._take({"skip": name, "reason": reason})

    def time_for(self, name: str, seconds: float = 0.0) -> bool:
        """Whether a row is to be measured, and so many seconds are left; if not, it is taken down as left out."""
        if any(each in name for each in self._left_out):
            self.skip(name, NOT_THESE)
        elif self.left <= seconds:
            self.skip(name, f"{max(self.left, 0):.0f} s were left before the deadline of the part")
        else:
            return True
        return False

    @contextmanager
    def trying(self, name: str) -> Iterator[None]:
        """Take an error down in place of what it kept from being measured, and let the part go on."""
        try:
            yield
        except Exception as error:
            self.skip(name, said(error))


def said(error: BaseException) -> str:
    """The kind of an error and its first line."""
    return f"{type(error).__name__}: {first_line(error)}"


def part_record(lines: Sequence[Line], status: str, reason: str | None, seconds: float) -> dict[str, Any]:
    """What is kept of a part.

    Args:
        status: done, late, failed or skipped.
        reason: unless it is done.
    """
    measures = {line["measure"]: _measure(line["unit"], line["values"]) for line in lines if "measure" in line}
    return {
        "status": status,
        "reason": reason,
        "seconds": round(seconds, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "measures": measures,
        "facts": {line["fact"]: line["value"] for line in lines if "fact" in line},
        "skipped": {line["skip"]: line["reason"] for line in lines if "skip" in line},
    }


def _measure(unit: str, values: list[float]) -> dict[str, Any]:
    median, lowest, highest = statistics.median(values), min(values), max(values)
    return {"unit": unit, "median": median, "lowest": lowest, "highest": highest, "values": values}


def figure(measure: Mapping[str, Any]) -> str:
    """A measure for people: its median, and the lowest and highest in brackets."""
    values = [_number(measure[which]) for which in ("median", "lowest", "highest")]
    return f"{values[0]} [{values[1]}, {values[2]}] {measure['unit']}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def text_of(line: Line) -> str:
    """A line for people."""
    if "measure" in line:
        return f"  {line['measure']}: {figure(_measure(line['unit'], line['values']))}"
    if "fact" in line:
        return f"  {line['fact']}: {line['value']}"
    return f"  {line['skip']}: left out: {line['reason']}"


class Results:
    """The file of a device, which is written after every part.

    Args:
        path: of the file; what it has of parts that are not measured again stays.
        machine: what it was measured on.
        smoke: whether it only tried that all of it runs.
    """

    def __init__(self, path: Path, machine: Mapping[str, Any], smoke: bool) -> None:
        self.path, self.content = path, {"smoke": smoke, "machine": dict(machine), "parts": dict[str, Any]()}
        if path.exists():
            self.content["parts"] |= json.loads(path.read_text())["parts"]

    def add(self, name: str, part: Mapping[str, Any]) -> None:
        """Add a part, and write the file."""
        self.content["parts"][name] = dict(part)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self.path, json.dumps(self.content, indent=1, allow_nan=False) + "\n")
