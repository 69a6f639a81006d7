"""A student's run: its settings, and what it learns from.

That is cached views with the teacher's answers, or views that are drawn anew in every epoch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from pipeline.config import problems_of
from pipeline.errors import ConfigError
from pipeline.experiment.data import Data
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.objective_set import objective_set
from pipeline.experiment.sections import StudentConfig, StudentsSection
from pipeline.models import Network
from pipeline.models.device import choose_device, choose_precision
from pipeline.objectives import ObjectiveSet, ObjectiveSetConfig, ObjectivesSection
from pipeline.progress import Progress
from pipeline.signals import LinearHead
from pipeline.training import FromCaches, Memory, Steps, TrainConfig, Verify, check_views
from pipeline.training.config import TrainSection


class StudentSections(StudentsSection, ObjectivesSection, TrainSection):
    """Declares what decides how students are trained."""


def training_of(train: TrainConfig, student: StudentConfig, name: str) -> TrainConfig:
    """The section `train` with the student's own keys. Raises ConfigError at `students.<name>.train`."""
    try:
        return TrainConfig.model_validate({**train.model_dump(), **student.train})
    except ValidationError as error:
        key = f"students.{name}.train"
        raise ConfigError([replace(p, key=f"{key}.{p.key}") for p in problems_of(error)]) from None


@dataclass(frozen=True)
class StudentRun:
    """One student with one objective set and one seed: names, and the settings that they stand for."""

    student: str
    objectives: str
    seed: int
    config: StudentConfig
    chosen: ObjectiveSetConfig
    training: TrainConfig

    @classmethod
    def of(cls, sections: StudentSections, student: str, objectives: str, seed: int) -> StudentRun:
        """Return the run of a student by its names. Raises ConfigError for wrong keys in the student's `train`."""
        config = sections.students[student]
        training = training_of(sections.train, config, student)
        # Resolved now: a run that goes on elsewhere goes on in the same precision.
        precision = choose_precision(training.precision, choose_device(training.device))
        training = training.model_copy(update={"precision": precision})
        return cls(student, objectives, seed, config, sections.objectives[objectives], training)


@dataclass(frozen=True)
class Learnt:
    """The objectives of a student, bound to its network, and the steps of its run. taught: None if views are fresh."""

    chosen: ObjectiveSet
    steps: Steps
    taught: FromCaches | None

    @classmethod
    def of(cls, run: StudentRun, network: Network, taught: FromCaches | None, data: Data) -> Learnt:
        """Bind the objectives of a run to its network, which from now on keeps the maps that they read of it.

        taught: the answers that it learns from, None if its views are fresh. Raises ConfigError if an objective cannot
        be built.
        """
        student, training = shapes_of(network), run.training
        memory = Memory(taught, data.training.labels, data.classes) if taught else None
        teacher = taught.shapes if taught else student
        views = training.views_per_step
        chosen = objective_set(run.objectives, run.chosen, student, teacher, data, run.seed, memory, views)
        needs = chosen.needs
        network.keep_taps([name.removeprefix("features/") for name in needs.student if name.startswith("features/")])
        if taught is None:
            return cls(chosen, Steps.fresh(data.training, data.views, training, run.seed), None)
        taught = taught.reading(needs.teacher - {"head"})
        rows = taught.primary.rows_per_block
        return cls(chosen, Steps(data.training, data.views, taught, taught.views, training, run.seed, rows), taught)

    @property
    def head(self) -> LinearHead | None:
        """The teacher's, if an objective reads it."""
        return self.taught.primary.head if self.taught and "head" in self.chosen.needs.teacher else None

    def identity(self) -> dict[str, Any]:
        """What decides the pixels and the answers that the student sees."""
        if self.taught is not None:
            return self.taught.identity()
        return {"views": "fresh", "drawn": self.steps.views.identity(), "pixels": self.steps.samples.pixel_digest()}

    def checked(self, verify: Verify, progress: Progress) -> str:
        """Compare views with those that the teacher saw, if it saw them; a sentence that says what was checked."""
        if self.taught is None:
            return "views are drawn anew in every epoch: the teacher has no part in this student"
        return check_views(self.steps, self.taught, verify, progress)
