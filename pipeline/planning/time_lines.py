"""Measures how long the rest of an experiment takes, and writes it in words, as `check` prints it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.experiment.data import Data
from pipeline.models import TeacherConfig
from pipeline.models.device import choose_device, choose_precision
from pipeline.planning.bound import Bound
from pipeline.planning.estimate import Estimate
from pipeline.planning.plan import Plan
from pipeline.planning.remaining import estimates
from pipeline.planning.sample_views import Clock, TimedViews
from pipeline.planning.timing import BUDGET, measure_costs
from pipeline.progress import doing

LARGE = 1.75
"""Images are worth packing smaller if their shorter side is so many times that of a view, or more."""
ROOM = 8 / 7
"""The usual ratio of an image's shorter side to that of a crop: 256 for 224."""


@dataclass(frozen=True)
class Times:
    """Holds how long the commands take that still have something to do.

    Args:
        estimates: of these commands.
        views: those that were measured.
        smaller: the shorter side to pack images with, in pixels, if that saves much.
        slow_precision: the teacher computes in bfloat16, which its device only imitates.
        busy: other work went on at the same time, so the times are too long.
    """

    estimates: list[Estimate]
    views: TimedViews
    smaller: int | None = None
    slow_precision: bool = False
    busy: bool = False

    @classmethod
    @doing("measuring how long the commands take")
    def of(
        cls, bound: Bound, plan: Plan, data: Data, budget: float = BUDGET, clock: Clock = time.perf_counter
    ) -> Times:
        """Measure everything once.

        Args:
            bound: the experiment.
            plan: what it would do.
            data: its packed data set.
            budget: seconds to spend in all, about.
            clock: measures them.
        """
        beside = busy()
        views = TimedViews.measure(data, budget / 5, clock)
        found = list(estimates(bound, plan, measure_costs(bound, data, views, budget * 4 / 5, clock)))
        smaller = shorter_side_hint(bound, data, views, found)
        return cls(found, views, smaller, imitated(bound.experiment.teacher), beside)

    def facts(self) -> list[dict[str, Any]]:
        """Return the estimates as plain values, for programs."""
        return [estimate.facts() for estimate in self.estimates]

    def lines(self) -> Iterator[str]:
        """Yield lines for people."""
        head = "time"
        for estimate in self.estimates:
            yield f"{head:<10}{estimate.text()}"
            head = ""
        if not self.estimates:
            yield "time      nothing is left to do"
        if self.busy and self.estimates:
            yield "          this machine was busy with other work in the last minute: alone, it will be sooner"
        if self.slow_precision and any(estimate.name == "cache-teacher" for estimate in self.estimates):
            yield "          this device only imitates bfloat16: `teacher.precision: float32` makes the cache sooner"
        if self.smaller:
            height, width = self.views.size
            less = min(self.views.size) ** 2 / self.smaller**2
            yield f"          images are up to {width} x {height}, and decoding them takes most of the time somewhere:"
            yield f"          `shorter_side: {self.smaller}` in data.source packs about {less:.0f} times fewer pixels"


def busy() -> bool:
    """Tell whether other work took more than half of the processors' time in the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 2


def imitated(teacher: TeacherConfig) -> bool:
    """Tell whether the device of `teacher` has no instructions for the precision that the teacher computes in."""
    return teacher.precision == "bfloat16" and choose_precision("auto", choose_device(teacher.device)) == "float32"


def shorter_side_hint(bound: Bound, data: Data, views: TimedViews, found: list[Estimate]) -> int | None:
    """Return the shorter side to pack images with, if they are much larger than views, and decoding takes the time.

    Args:
        bound: the experiment.
        data: its packed data set.
        views: the views that were measured.
        found: the estimates.

    Returns pixels, or None if packing smaller images would not help.
    """
    source, view = bound.experiment.data.source, data.views.output_size
    if source is None or "shorter_side" not in type(source).model_fields:
        return None
    if data.training.split.image_shape is not None or view is None:
        return None
    side = round(max(view) * ROOM)
    large = min(views.size) > LARGE * side
    return side if large and any(estimate.slowest == "decode" for estimate in found) else None
