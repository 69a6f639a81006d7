"""Builds an objective set for a student: from the teacher's cached signals, or for fresh views, which have none."""

from __future__ import annotations

from typing import Protocol

import torch

from pipeline.data import Samples
from pipeline.errors import ConfigError, Problem
from pipeline.objectives import Context, Objective, ObjectiveSet, ObjectiveSetConfig
from pipeline.signals import SignalShapes
from pipeline.training import Memory


class Learnable(Protocol):
    """Names what objectives read of a data set: the samples that are learnt from, and the number of classes."""

    @property
    def training(self) -> Samples:
        """The samples."""

    @property
    def classes(self) -> int:
        """K."""


def objective_set(
    name: str,
    config: ObjectiveSetConfig,
    student: SignalShapes,
    teacher: SignalShapes,
    data: Learnable,
    seed: int,
    memory: Memory | None = None,
    views_per_step: int = 1,
) -> ObjectiveSet:
    """Build the objectives; their initial weights are a function of the seed.

    name: of the set. teacher: nothing to a set with fresh views. memory: None where there is no cache, or not yet.
    Raises ConfigError if labels are missing, if the objectives cannot be built, or if views are fresh and one of the
    objectives reads the teacher.
    """
    place = config.place(name)
    labels = None if data.training.labels is None else torch.from_numpy(data.training.labels)
    if labels is None and (idle := [i for i, entry in enumerate(config.objectives) if entry.name == "hard-label"]):
        what = f"hard-label needs labels, and split {data.training.split.name!r} has none"
        fix = "leave it out, and learn from the teacher alone, with kd or lfcc"
        raise ConfigError([Problem(f"objectives.{place}.{i}", what, fix=fix) for i in idle])
    bank, means = (memory.bank, memory.class_means) if memory else (None, None)
    context = Context(data.training.count, data.classes, labels, seed, bank, means, views_per_step)
    if config.fresh:
        # Without a cache nobody knows the teacher's shapes. With the student's, most that reads a teacher can be built,
        # and says what it reads.
        teacher = student
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built = ObjectiveSet(place, config.objectives, student, teacher, context)
    except ConfigError as error:
        entries = tuple(f"objectives.{place}.{i}" for i in range(len(config.objectives)))
        if config.fresh and any(problem.key.startswith(entries) for problem in error.problems):
            raise ConfigError([_not_seen(name, "an objective cannot be built"), *error.problems]) from None
        raise
    if config.fresh and built.needs.teacher:
        raise ConfigError([_not_seen(name, "; ".join(_readers(built)))])
    return built


def _not_seen(name: str, why: str) -> Problem:
    what = f"the teacher has not seen views that are drawn anew, and {why}"
    return Problem(f"objectives.{name}.views", what, "cached", "fresh", "leave `views` out, or all but `hard-label`")


def _readers(built: ObjectiveSet) -> list[str]:
    return [
        f"{entry.label} reads its {', '.join(sorted(member.needs.teacher))}"
        for entry, member in zip(built.entries, built.members, strict=True)
        if isinstance(member, Objective) and member.needs.teacher
    ]
