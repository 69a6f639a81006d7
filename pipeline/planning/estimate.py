"""Describes how long a command takes: what a view costs, times the views that it still has to process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DATA = ("decode", "render")
"""The parts that the processor does; a network may compute on an accelerator at the same time."""


@dataclass(frozen=True)
class Costs:
    """Holds what a view costs on this machine, in seconds, with all cores.

    Args:
        decode: to read and decode an image.
        render: to apply the operations.
        teacher: inference of the teacher.
        steps: to train a network, forwards, backwards and by its optimiser: the students by name, and the teacher as
            `teacher` if it is trained here.
        apart: whether networks compute on an accelerator, while the processor decodes.
    """

    decode: float
    render: float
    teacher: float
    steps: Mapping[str, float]
    apart: bool = False


@dataclass(frozen=True)
class Estimate:
    """Tells how long a command takes.

    Args:
        name: of the command.
        views: of one run.
        parts: seconds per view, by what they are for.
        runs: how many there are.
        apart: as of `Costs`.
    """

    name: str
    views: int
    parts: Mapping[str, float]
    runs: int = 1
    apart: bool = False

    @property
    def seconds(self) -> float:
        """Return the seconds of one run."""
        data = sum(cost for part, cost in self.parts.items() if part in DATA)
        network = sum(self.parts.values()) - data
        return self.views * (max(data, network) if self.apart else data + network)

    @property
    def slowest(self) -> str:
        """Return the name of the part that takes the most time."""
        return max(self.parts, key=lambda part: self.parts[part])

    def facts(self) -> dict[str, Any]:
        """Return the estimate as plain values, for programs."""
        a_view = {part: round(cost, 7) for part, cost in self.parts.items()}
        total = self.seconds * self.runs
        return {"name": self.name, "seconds": round(total, 3), "runs": self.runs, "seconds_per_view": a_view}

    def text(self) -> str:
        """Return the estimate as a line for people."""
        whole = f"{self.name} about {about(self.seconds)}"
        if self.runs > 1:
            whole += f" a run, {about(self.seconds * self.runs)} for {self.runs} runs"
        parts = ", ".join(f"{part} {_span(cost)}" for part, cost in self.parts.items())
        most = f"; most of it to {self.slowest}" if self.slowest in DATA else ""
        return f"{whole} ({parts} a view{most})"


def _span(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{float(f'{1000 * seconds:.2g}'):g} ms"


def about(seconds: float) -> str:
    """Write seconds as an estimate: `40 s`, `12 min`, `3 h 45 min`, `2 days 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
