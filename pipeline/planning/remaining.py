"""Estimates how long the commands of an experiment take that still have something to do."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.experiment.students import training_of
from pipeline.planning.bound import Bound
from pipeline.planning.estimate import Costs, Estimate
from pipeline.planning.plan import Plan


def estimates(bound: Bound, plan: Plan, costs: Costs) -> Iterator[Estimate]:
    """Yield an estimate of every command that still has something to do, in the order in which they run.

    Args:
        bound: the experiment.
        plan: what it would do.
        costs: of a view on this machine.
    """
    experiment, samples = bound.experiment, plan.data.training
    left = {artifact.name: artifact.remaining / artifact.bytes for artifact in plan.artifacts if artifact.bytes}
    shape = samples.split.image_shape
    bytes_there = 0 if shape is None else samples.count * shape[0] * shape[1] * shape[2]

    def step_parts(step: float, resident_gigabytes: float) -> dict[str, float]:
        """Return the parts of a training step: images that stay in memory are decoded once."""
        resident = shape is not None and bytes_there <= resident_gigabytes * 2**30
        return {**({} if resident else {"decode": costs.decode}), "render": costs.render, "train": step}

    inference = {"decode": costs.decode, "render": costs.render, "teacher": costs.teacher}
    if left.get("teacher") and (training := experiment.teacher_training):
        if training.probes:
            views = training.probe * samples.count
            yield Estimate("train-teacher (its linear probe)", views, inference, apart=costs.apart)
        if training.freeze == "none" and "teacher" in costs.steps:
            parts = step_parts(costs.steps["teacher"], training.resident_gigabytes)
            yield Estimate("train-teacher", training.epochs * samples.count, parts, apart=costs.apart)
    missing = (cache.samples * cache.views * left[f"{name} cache"] for name, cache in plan.caches.items())
    if views := round(sum(missing)):
        yield Estimate("cache-teacher", views, inference, apart=costs.apart)
    for name, config in experiment.students.items():
        settings = training_of(experiment.train, config, name)
        folders = experiment.runs.folders([name], experiment.objectives)
        if name in costs.steps and (runs := sum(not folder.exists() for folder in folders)):
            views = settings.epochs * samples.count * settings.views_per_step
            parts = step_parts(costs.steps[name], settings.resident_gigabytes)
            yield Estimate(f"train-student {name}", views, parts, runs, costs.apart)
