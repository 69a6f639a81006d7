"""Builds an objective set for a student: from the teacher's cached signals, or for fresh views, which have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from pipeline.data import Samples
from pipeline.errors import ConfigError, Problem
from pipeline.objectives import Context, KnownTeacher, Objective, ObjectiveSet, ObjectiveSetConfig
from pipeline.signals import SignalShapes
from pipeline.training import Memory
from pipeline.views import Views


class Learnable(Protocol):
    """Names what objectives read of a data set."""

    @property
    def training(self) -> Samples:
        """Return the samples that are learnt from."""

    @property
    def classes(self) -> int:
        """Return the number of classes K."""

    @property
    def views(self) -> Views:
        """Return their views."""


class OtherTeacher(NamedTuple):
    """Holds what is known of a teacher that objectives name.

    Args:
        shapes: of its signals.
        memory: its cached signals of any sample; None where there is no cache, or not yet.
    """

    shapes: SignalShapes
    memory: Memory | None = None


@dataclass(frozen=True)
class ObjectiveBuilder:
    """Builds objective sets for one student and its teachers.

    Args:
        student, teacher: the shapes of their signals; those of the teacher mean nothing to a set with fresh views.
        data: what is learnt from.
        seed: decides the initial weights of objectives.
        memory: the cached signals of any sample; None where there is no cache, or not yet.
        views_per_step: how many views of each sample a batch has.
        own: the name of the teacher; None if it has none.
        others: the teachers that objectives name, by name.
    """

    student: SignalShapes
    teacher: SignalShapes
    data: Learnable
    seed: int
    memory: Memory | None = None
    views_per_step: int = 1
    own: str | None = None
    others: Mapping[str, OtherTeacher] = field(default_factory=dict)

    def build(self, name: str, config: ObjectiveSetConfig) -> ObjectiveSet:
        """Build the objectives of a set.

        Args:
            name: of the set.
            config: its entry in the section `objectives`.

        Raises ConfigError if labels are missing, if the objectives cannot be built, or if views are fresh and one of
        the objectives reads the teacher.
        """
        place = config.place(name)
        self._require_labels(place, config)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(self.seed)
                # Without a cache the teacher's shapes are not known. With the student's, most objectives that read a
                # teacher can be built, and name what they read.
                teacher = self.student if config.fresh else self.teacher
                others = {
                    name: KnownTeacher(other.shapes, self._context(other.memory)) for name, other in self.others.items()
                }
                context = self._context(self.memory)
                built = ObjectiveSet(
                    place,
                    config.objectives,
                    self.student,
                    teacher,
                    context,
                    others=others,
                    own=self.own,
                    teacher_dropping=config.teacher_dropping,
                )
        except ConfigError as error:
            entries = tuple(f"objectives.{place}.{i}" for i in range(len(config.objectives)))
            if config.fresh and any(problem.key.startswith(entries) for problem in error.problems):
                raise ConfigError([_no_teacher(name, "an objective cannot be built"), *error.problems]) from None
            raise
        if config.fresh and (built.needs.teacher or built.needs_of_others):
            raise ConfigError([_no_teacher(name, "; ".join(_readers(built)))])
        return built

    def _require_labels(self, place: str, config: ObjectiveSetConfig) -> None:
        samples = self.data.training
        if samples.labels is not None:
            return
        if idle := [i for i, entry in enumerate(config.objectives) if entry.name == "hard-label"]:
            what = f"hard-label needs labels, and split {samples.split.name!r} has none"
            fix = "leave it out, and learn from the teacher alone, with kd or lfcc"
            raise ConfigError([Problem(f"objectives.{place}.{i}", what, fix=fix) for i in idle])

    def _context(self, memory: Memory | None) -> Context:
        samples = self.data.training
        labels = None if samples.labels is None else torch.from_numpy(samples.labels)
        return Context(
            samples.count,
            self.data.classes,
            labels,
            self.seed,
            memory.bank if memory else None,
            memory.class_means if memory else None,
            self.views_per_step,
            self.data.views.mixing,
            memory.moments if memory else None,
            memory.nearest if memory else None,
        )


def _no_teacher(name: str, why: str) -> Problem:
    what = f"the teacher has not seen views that are drawn anew, and {why}"
    fix = "leave `views` out, or all but `hard-label` and every `weighting`"
    return Problem(f"objectives.{name}.views", what, "cached", "fresh", fix)


def _readers(built: ObjectiveSet) -> list[str]:
    return [
        f"{entry.label} reads its {', '.join(sorted(member.needs.teacher))}"
        for entry, member in zip(built.entries, built.members, strict=True)
        if isinstance(member, Objective) and member.needs.teacher
    ]
