"""The whole configuration of an experiment: every section there is."""

from __future__ import annotations

from typing import TypeVar

from pydantic import Field

from pipeline.config import Name, Section
from pipeline.data import DataConfig
from pipeline.experiment.cache_config import Caches, caches_read
from pipeline.experiment.caches import cache_paths
from pipeline.experiment.networks import StudentConfig
from pipeline.experiment.opened import EvaluateConfig
from pipeline.experiment.source import RunsConfig
from pipeline.models import TeacherConfig
from pipeline.objectives import ObjectivesConfig
from pipeline.signals import SignalsConfig
from pipeline.store.config import StoreConfig
from pipeline.store.location import StorePath
from pipeline.training import TrainConfig
from pipeline.training.teacher import TeacherTraining
from pipeline.views import ViewsConfig

_T = TypeVar("_T")


class ExperimentConfig(Section):
    """Every section of a configuration."""

    data: DataConfig
    teacher: TeacherConfig
    teacher_training: TeacherTraining | None = None
    views: ViewsConfig = ViewsConfig()
    signals: SignalsConfig = SignalsConfig()
    store: StoreConfig
    caches: Caches | None = None
    students: dict[Name, StudentConfig] = Field(default_factory=dict)
    objectives: ObjectivesConfig = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runs: RunsConfig

    def caches_written(self) -> dict[str, StorePath]:
        """The stores that `cache-teacher` writes, by what they are for."""
        return self._needed(cache_paths(self.store.path))

    def caches_read(self) -> dict[str, list[StorePath]]:
        """The stores that students learn from and are evaluated by: those written, unless `caches` names others."""
        return self._needed(caches_read(self.store, self.caches))

    def _needed(self, paths: dict[str, _T]) -> dict[str, _T]:
        return {what: path for what, path in paths.items() if what != "holdout" or self.data.holdout is not None}
