"""Declares the whole configuration of an experiment: every section there is."""

from __future__ import annotations

from pydantic import Field

from pipeline.config import Name
from pipeline.experiment.runs import RunsSection
from pipeline.experiment.section_sets import LearningSections
from pipeline.experiment.sections import StudentConfig, StudentsSection, caches_read, caches_written
from pipeline.objectives import ObjectivesConfig, ObjectivesSection
from pipeline.store.location import StorePath
from pipeline.training.config import TrainSection
from pipeline.training.teacher import TeacherTrainingSection


class ExperimentConfig(
    LearningSections, TeacherTrainingSection, StudentsSection, ObjectivesSection, TrainSection, RunsSection
):
    """Holds every section of a configuration. An experiment may have no students and no objectives yet."""

    students: dict[Name, StudentConfig] = Field(default_factory=dict)
    objectives: ObjectivesConfig = Field(default_factory=dict)

    def caches_written(self) -> dict[str, StorePath]:
        """Return the stores that `cache-teacher` writes, by what they are for."""
        return caches_written(self.data, self.store)

    def caches_read(self) -> dict[str, list[StorePath]]:
        """Return the stores students learn from and are compared with, by their use: of `caches`, or those written."""
        return caches_read(self.data, self.store, self.caches)
