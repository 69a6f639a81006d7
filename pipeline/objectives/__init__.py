"""Computes distillation objectives: one method per file, the file's name is the name in the configuration."""

from typing import TYPE_CHECKING

from pipeline.late import late_names
from pipeline.objectives.config import ObjectiveEntry, ObjectivesConfig, ObjectiveSetConfig, ObjectivesSection, Schedule

if TYPE_CHECKING:
    from pipeline.objectives.base import (
        Batch,
        Context,
        MixedLabels,
        Needs,
        Neighbours,
        Objective,
        Terms,
        build_objective,
    )
    from pipeline.objectives.divergence import kl_divergence
    from pipeline.objectives.set import KnownTeacher, ObjectiveSet
else:
    __getattr__ = late_names(
        __name__,
        base="Batch Context MixedLabels Needs Neighbours Objective Terms build_objective",
        divergence="kl_divergence",
        set="KnownTeacher ObjectiveSet",
    )

__all__ = [
    "Batch",
    "Context",
    "KnownTeacher",
    "MixedLabels",
    "Needs",
    "Neighbours",
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
