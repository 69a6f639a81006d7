"""Computes distillation objectives: one method per file, the file's name is the name in the configuration."""

from pipeline.objectives.base import Batch, Context, MixedLabels, Needs, Objective, Terms, build_objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.set import (
    ObjectiveEntry,
    ObjectivesConfig,
    ObjectiveSet,
    ObjectiveSetConfig,
    ObjectivesSection,
    Schedule,
)

__all__ = [
    "Batch",
    "Context",
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
