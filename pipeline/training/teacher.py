"""Declares the section `teacher_training`: how a teacher is trained on labels."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.config import Section
from pipeline.models import WeightsSource
from pipeline.objectives.config import ClassWeights
from pipeline.training.config import NOT_IN_THE_WEIGHTS, TrainConfig


class TeacherTraining(TrainConfig):
    """Configures how a teacher is trained on labels: the keys of `train`, and the weights that it begins with.

    Args:
        start: weights to begin with, `pretrained` (timm's own) or a file; the classifier is new where theirs does not
            fit. null: random ones.
        freeze: `backbone` trains the classifier alone, a linear probe, in minutes; `epochs` and all that is about steps
            then has no effect. `none` trains all weights, after such a probe if there is a `start`: a classifier that
            fits does not distort good features in its first steps (LP-FT, Kumar et al. 2022, arXiv 2202.10054).
        probe: how many views of each image the probe learns from: the first as evaluation sees it, the others drawn as
            `views` says; 0 leaves the probe out.
        label_smoothing, class_weights: options of `hard-label`.
    """

    later: ClassVar[frozenset[str]] = frozenset(
        {*TrainConfig.later, "start", "freeze", "probe", "label_smoothing", "class_weights"}
    )

    start: WeightsSource | None = None
    freeze: Literal["backbone", "none"] = "none"
    probe: int = Field(4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: ClassWeights = "none"

    @model_validator(mode="after")
    def _something_learns(self) -> Self:
        if self.freeze == "backbone" and self.start is None:
            raise ValueError("freeze: backbone needs weights that are good already: add start: pretrained, or a file")
        if self.freeze == "backbone" and self.probe == 0:
            raise ValueError("freeze: backbone with probe: 0 trains nothing: the probe learns from one view at least")
        return self

    @property
    def probes(self) -> bool:
        """Tell whether a linear probe comes first."""
        return self.start is not None and self.probe > 0

    @property
    def objective(self) -> dict[str, Any]:
        """Return the entry of an objective set that a teacher is trained with."""
        return {"name": "hard-label", "label_smoothing": self.label_smoothing, "class_weights": self.class_weights}

    def identity(self) -> dict[str, Any]:
        """Return what decides the weights, as for `train`. The digest of the first weights is added elsewhere."""
        return self.for_identity(*NOT_IN_THE_WEIGHTS, "start")


class TeacherTrainingSection(Section):
    """Declares that the section `teacher_training` is read; without it the configuration brings its teacher."""

    teacher_training: TeacherTraining | None = None
