"""What a student learns from: cached views with the teacher's answers, or views that are drawn anew in every epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.experiment.learning import shapes_of
from pipeline.experiment.objective_set import objective_set
from pipeline.experiment.opened import Data
from pipeline.models import Network
from pipeline.objectives import ObjectiveSet, ObjectiveSetConfig
from pipeline.progress import Progress
from pipeline.signals import LinearHead
from pipeline.training import FromCaches, Memory, Steps, TrainConfig, Verify, check_views


@dataclass(frozen=True)
class Learnt:
    """The objectives of a student, bound to its network, and the steps of its run. taught: None if views are fresh."""

    chosen: ObjectiveSet
    steps: Steps
    taught: FromCaches | None

    @classmethod
    def of(
        cls,
        taught: FromCaches | None,
        network: Network,
        name: str,
        config: ObjectiveSetConfig,
        data: Data,
        training: TrainConfig,
        seed: int,
    ) -> Learnt:
        """Bind the set `name` to a network, which from now on keeps what the objectives read of it.

        Raises ConfigError if the set cannot be built.
        """
        student = shapes_of(network)
        memory = Memory(taught, data.training.labels, data.classes) if taught else None
        teacher = taught.shapes if taught else student
        chosen = objective_set(name, config, student, teacher, data, seed, memory, training.views_per_step)
        needs = chosen.needs
        network.keep_taps([name.removeprefix("features/") for name in needs.student if name.startswith("features/")])
        if taught is None:
            return cls(chosen, Steps.fresh(data.training, data.views, training, seed), None)
        taught = taught.reading(needs.teacher - {"head"})
        rows = taught.primary.rows_per_block
        return cls(chosen, Steps(data.training, data.views, taught, taught.views, training, seed, rows), taught)

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
