"""The whole configuration of an experiment: every section there is."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from pipeline.config import Section
from pipeline.data import DataConfig
from pipeline.models import TeacherConfig
from pipeline.objectives import ObjectivesConfig
from pipeline.signals import SignalsConfig
from pipeline.store import StoreConfig
from pipeline.training import TrainConfig
from pipeline.views import ViewsConfig
from stages.caches import CacheConfig, EvaluateConfig, cache_paths
from stages.inputs import RunsConfig
from stages.parts import StudentConfig


class Experiment(Section):
    """Every section of a configuration."""

    data: DataConfig
    teacher: TeacherConfig
    teacher_training: TrainConfig | None = None
    views: ViewsConfig = ViewsConfig()
    signals: SignalsConfig = SignalsConfig()
    store: StoreConfig
    caches: tuple[CacheConfig] | None = None
    students: dict[str, StudentConfig] = Field(default_factory=dict)
    objectives: ObjectivesConfig = Field(default_factory=dict)
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    runs: RunsConfig

    def caches_written(self) -> dict[str, Path]:
        """The stores that `cache-teacher` writes, by what they are for."""
        paths = cache_paths(self.store)
        return {what: path for what, path in paths.items() if what != "holdout" or self.data.holdout is not None}
