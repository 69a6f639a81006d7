"""Computes distillation objectives: one method per file, the file's name is the name in the configuration."""

from pipeline.objectives.base import Batch, Context, MixedLabels, Needs, Objective, Terms, build_objective
from pipeline.objectives.config import ObjectiveEntry, ObjectivesConfig, ObjectiveSetConfig, ObjectivesSection, Schedule
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.set import KnownTeacher, ObjectiveSet

__all__ = [
    "Batch",
    "Context",
    "KnownTeacher",
    "MixedLabels",
    "Needs",
    "Objective",
    "ObjectiveEntry",
    "ObjectiveSet",
    "ObjectiveSetConfig",
    "ObjectivesConfig",
    "ObjectivesSection",
    "Schedule",
    "Terms",
    "build_objective",
    "kl_divergence",
]
