"""How long the rest of an experiment takes, as `check` says it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.experiment.data import Data
from pipeline.models import TeacherConfig
from pipeline.models.device import choose_device, choose_precision
from pipeline.planning.binding import Bound
from pipeline.planning.estimate import Estimate, estimates
from pipeline.planning.plan import Plan
from pipeline.planning.sample_views import Clock, Look
from pipeline.planning.timing import BUDGET, measured

LARGE = 1.75
"""Images whose shorter side is so many times a view's are worth packing smaller."""
ROOM = 8 / 7
"""Of the shorter side beyond a view's, as everybody leaves it: 256 for 224."""


@dataclass(frozen=True)
class Times:
    """The commands that are still to do something, and what was seen of the images.

    smaller: the shorter side to pack them with, if that saves much. slow_precision: the teacher computes in bfloat16,
    which its device only imitates. busy: other work went on beside, so the times are too long.
    """

    estimates: list[Estimate]
    look: Look
    smaller: int | None = None
    slow_precision: bool = False
    busy: bool = False

    @classmethod
    def of(
        cls, bound: Bound, plan: Plan, data: Data, budget: float = BUDGET, clock: Clock = time.perf_counter
    ) -> Times:
        """Times everything once, for about `budget` seconds in all."""
        beside = busy()
        look = Look.at(data, budget / 5, clock)
        found = list(estimates(bound, plan, measured(bound, data, look, budget * 4 / 5, clock)))
        smaller = shorter_side_hint(bound, data, look, found)
        return cls(found, look, smaller, imitated(bound.experiment.teacher), beside)

    def facts(self) -> list[dict[str, Any]]:
        """As plain values, for programs."""
        return [estimate.facts() for estimate in self.estimates]

    def lines(self) -> Iterator[str]:
        """For people."""
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
            height, width = self.look.size
            less = min(self.look.size) ** 2 / self.smaller**2
            yield f"          images are up to {width} x {height}, and decoding them takes most of the time somewhere:"
            yield f"          `shorter_side: {self.smaller}` in data.source packs about {less:.0f} times fewer pixels"


def busy() -> bool:
    """Whether others took more than half of the processors' time in the last minute."""
    return os.getloadavg()[0] > (os.cpu_count() or 1) / 2


def imitated(teacher: TeacherConfig) -> bool:
    """Whether the teacher's device has no instructions for the precision that it computes in."""
    return teacher.precision == "bfloat16" and choose_precision("auto", choose_device(teacher.device)) == "float32"


def shorter_side_hint(bound: Bound, data: Data, look: Look, found: list[Estimate]) -> int | None:
    """The shorter side to pack images with, if they are much larger than views, and decoding them takes the time."""
    source, view = bound.experiment.data.source, data.views.output_size
    if source is None or "shorter_side" not in type(source).model_fields:
        return None
    if data.training.split.image_shape is not None or view is None:
        return None
    side = round(max(view) * ROOM)
    large = min(look.size) > LARGE * side
    return side if large and any(estimate.slowest == "decode" for estimate in found) else None
