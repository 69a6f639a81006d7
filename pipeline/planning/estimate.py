"""How long the work of an experiment takes: what a view costs, times the views that are still to be seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.experiment.students import training_of
from pipeline.planning.binding import Bound
from pipeline.planning.plan import Plan

DATA = ("decode", "render")
"""What the processor does; a network may compute on an accelerator at the same time."""


@dataclass(frozen=True)
class Costs:
    """Seconds a view, on this machine.

    decode: to read and decode an image. render: to apply the operations. teacher: to ask it. steps: of training a
    network forwards, backwards and by its optimiser: the teacher's as `teacher`, if it is trained here, and those of
    students by name. Each with all cores. apart: networks compute on an accelerator, while the processor decodes.
    """

    decode: float
    render: float
    teacher: float
    steps: Mapping[str, float]
    apart: bool = False


@dataclass(frozen=True)
class Estimate:
    """How long a command takes. views: of one run; parts: seconds a view, by what they are for; runs: of them."""

    name: str
    views: int
    parts: Mapping[str, float]
    runs: int = 1
    apart: bool = False

    @property
    def seconds(self) -> float:
        """Of one run."""
        data = sum(cost for part, cost in self.parts.items() if part in DATA)
        network = sum(self.parts.values()) - data
        return self.views * (max(data, network) if self.apart else data + network)

    @property
    def slowest(self) -> str:
        """The part that takes the most time."""
        return max(self.parts, key=lambda part: self.parts[part])

    def facts(self) -> dict[str, Any]:
        """As plain values, for programs."""
        a_view = {part: round(cost, 7) for part, cost in self.parts.items()}
        total = self.seconds * self.runs
        return {"name": self.name, "seconds": round(total, 3), "runs": self.runs, "seconds_per_view": a_view}

    def text(self) -> str:
        """For people."""
        whole = f"{self.name} about {about(self.seconds)}"
        if self.runs > 1:
            whole += f" a run, {about(self.seconds * self.runs)} for {self.runs} runs"
        parts = ", ".join(f"{part} {_span(cost)}" for part, cost in self.parts.items())
        most = f"; most of it to {self.slowest}" if self.slowest in DATA else ""
        return f"{whole} ({parts} a view{most})"


def estimates(bound: Bound, plan: Plan, costs: Costs) -> Iterator[Estimate]:
    """Of every command that is still to do something, in the order in which they run."""
    experiment, samples = bound.experiment, plan.data.training
    left = {artifact.name: artifact.remaining / artifact.bytes for artifact in plan.artifacts if artifact.bytes}
    shape = samples.split.image_shape
    bytes_there = 0 if shape is None else samples.count * shape[0] * shape[1] * shape[2]

    def seen(step: float, resident_gigabytes: float) -> dict[str, float]:
        """The parts of a training step: images that stay in memory are decoded once."""
        resident = shape is not None and bytes_there <= resident_gigabytes * 2**30
        return {**({} if resident else {"decode": costs.decode}), "render": costs.render, "train": step}

    looked = {"decode": costs.decode, "render": costs.render, "teacher": costs.teacher}
    if left.get("teacher") and (taught := experiment.teacher_training):
        if taught.probes:
            yield Estimate("train-teacher (its linear probe)", taught.probe * samples.count, looked, apart=costs.apart)
        if taught.freeze == "none" and "teacher" in costs.steps:
            parts = seen(costs.steps["teacher"], taught.resident_gigabytes)
            yield Estimate("train-teacher", taught.epochs * samples.count, parts, apart=costs.apart)
    asked = {name: cache.samples * cache.views * left[f"{name} cache"] for name, cache in plan.caches.items()}
    if views := round(sum(asked.values())):
        yield Estimate("cache-teacher", views, looked, apart=costs.apart)
    for name, config in experiment.students.items():
        training = training_of(experiment.train, config, name)
        folders = experiment.runs.folders([name], experiment.objectives)
        if name in costs.steps and (runs := sum(not folder.exists() for folder in folders)):
            views = training.epochs * samples.count * training.views_per_step
            parts = seen(costs.steps[name], training.resident_gigabytes)
            yield Estimate(f"train-student {name}", views, parts, runs, costs.apart)


def _span(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds >= 1 else f"{float(f'{1000 * seconds:.2g}'):g} ms"


def about(seconds: float) -> str:
    """Seconds as an estimate is said: `40 s`, `12 min`, `3 h 45 min`, `2 days 4 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(seconds / 3600)
    return f"{minutes // 60} h {minutes % 60:02d} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"
