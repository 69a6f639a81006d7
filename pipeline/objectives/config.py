"""Declares the section `objectives`: objective sets, the objectives in them, and how their weights change."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    TypeAdapter,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from pipeline import plugins
from pipeline.config import Name, Section

METHODS = "pipeline.objectives.methods"
"""The package whose files are the methods."""

ClassWeights = Literal["none", "balanced"] | tuple[PositiveFloat, ...]
"""How much a label of each class counts: `none` alike, `balanced` by 1 / its samples, or the weights themselves."""

RESERVED = ("name", "weight", "label", "schedule", "learning_rate", "teacher", "standardise", "weighting")


class Schedule(Section):
    """Configures how an objective's weight changes with progress, the fraction of training that is done.

    0 up to `on_after`; from there linear from 0 over `warmup`; then constant, or, with `decay: cosine`, half a cosine
    from 1 at the end of the warm-up down to 0 at `off_after`; 0 from there on. Twenty of 240 epochs are a warm-up of
    0.083; off in the last 10 of 250 is `off_after: 0.96`; on in the second half is `on_after: 0.5`.
    """

    on_after: float = Field(0.0, ge=0, lt=1)
    warmup: float = Field(0.0, ge=0, le=1)
    off_after: float = Field(1.0, gt=0, le=1)
    decay: Literal["none", "cosine"] = "none"

    @model_validator(mode="after")
    def _warm_before_off(self) -> Self:
        if self.on_after >= self.off_after:
            raise ValueError("on_after must be before off_after: the weight would always be 0")
        if self._full >= self.off_after and self.warmup > 0:
            raise ValueError("warmup must end before off_after: the full weight would never be reached")
        return self

    @property
    def _full(self) -> float:
        """The progress at which the warm-up ends."""
        return self.on_after + self.warmup

    def factor(self, progress: float) -> float:
        """Return the factor in [0, 1] at a `progress` in [0, 1]."""
        if progress < self.on_after or (self.off_after <= progress and self.off_after < 1):
            return 0.0
        if progress < self._full:
            return (progress - self.on_after) / self.warmup
        if self.decay == "cosine":
            return (1 + math.cos(math.pi * (progress - self._full) / (self.off_after - self._full))) / 2
        return 1.0


class EntropyWeighting(Section):
    """Configures how much each sample counts: more where the teacher is in doubt, and the student, too.

    Its name alone will do, `weighting: entropy`. With H the entropy in nats of the softmax of logits divided by
    `temperature`, a sample's value is multiplied by ½ · H(teacher) · (1 + H(student) / bound), a constant without
    gradient (EA-KD, ICCV 2025, arXiv 2311.13621, and the authors' code).

    Args:
        name: `entropy`, the only one there is.
        temperature: that of both softmaxes; 3 is the authors' value for CIFAR-100, 2 for ImageNet.
        bound: what the student's entropy is divided by: `log-classes`, the largest that it can have, or a number in
            nats. The authors' code for KD and DKD on CIFAR-100 divides by 100, which leaves next to nothing of the
            student's part.
    """

    name: Literal["entropy"] = "entropy"
    temperature: float = Field(3.0, gt=0)
    bound: Literal["log-classes"] | PositiveFloat = "log-classes"


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class ObjectiveEntry(Section):
    """Configures one objective of a set; its name alone will do. Other keys than these are options of the objective.

    Args:
        weight: factor of its value.
        label: its name in logs, needed where a set holds an objective twice; else its name, with that of the `teacher`
            if it names one.
        learning_rate: multiplies the student's learning rate for the objective's own parameters.
        schedule: of the weight; null keeps it.
        teacher: the name that a teacher has in `caches`: the objective reads that one's signals, with projections of
            its own to that one's widths. None reads the experiment's own teacher, or the ensemble.
        standardise: `channels` or `phi-s`: the teacher's embedding and maps are first standardised by their mean and
            covariance over the whole cache; `none` leaves them as they are.
        weighting: `entropy`, or a mapping with its options: samples count the more, the less sure teacher and student
            are of them. For objectives that compare each sample by itself. None has all count alike.
    """

    name: str
    weight: float = Field(1.0, ge=0)
    label: str = ""
    schedule: Schedule | None = None
    learning_rate: float = Field(1.0, gt=0)
    teacher: Name | None = None
    standardise: Literal["none", "channels", "phi-s"] = "none"
    weighting: Annotated[EntropyWeighting | None, BeforeValidator(_by_name)] = None
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, ObjectiveEntry):
            return value
        entry = plugins.as_mapping(value, plugins.names(METHODS))
        given = {key: item for key, item in entry.items() if key == "name" or key not in RESERVED}
        if plugins.names_alone(info):
            plugins.named(METHODS, given)
            options = {}
        else:
            options = plugins.choose(METHODS, given).options.for_identity()
        fields = {key: item for key, item in entry.items() if key in RESERVED and item is not None}
        teacher = entry.get("teacher")  # an objective for each of several teachers has a label for each
        label = f"{entry['name']}-{teacher}" if isinstance(teacher, str) else entry["name"]
        return {"label": label, **fields, "options": options}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": self.name, "weight": self.weight, "label": self.label}
        entry["schedule"] = self.schedule.model_dump() if self.schedule else None
        entry["learning_rate"] = self.learning_rate
        if self.teacher is not None:  # keys that are not used are left out: the entry is part of a student's identity
            entry["teacher"] = self.teacher
        if self.standardise != "none":
            entry["standardise"] = self.standardise
        if self.weighting is not None:
            entry["weighting"] = self.weighting.model_dump()
        return {**entry, **self.options}


class ObjectiveSetConfig(Section):
    """Configures an objective set: a list of objectives, or a mapping such as `{views: fresh, objectives: [...]}`.

    Args:
        views: `cached`, those that the teacher saw, or `fresh`: new ones are drawn for every epoch, of the operations
            and the seed of the section `views`. That is for sets that read nothing of the teacher, such as `hard-label`
            alone: no cache is needed.
        teacher_dropping: the probability, for every image of every step, of leaving out the objectives of a teacher
            that they name, if its loss of the image is not the largest of all such teachers; 0 leaves none out.
    """

    views: Literal["cached", "fresh"] = "cached"
    teacher_dropping: float = Field(0.0, ge=0, le=1)
    objectives: tuple[ObjectiveEntry, ...]

    @model_validator(mode="after")
    def _several_to_drop(self) -> Self:
        if self.teacher_dropping and len({entry.teacher for entry in self.objectives} - {None}) < 2:
            raise ValueError("teacher_dropping needs objectives of two teachers or more, each with its `teacher`")
        return self

    @property
    def fresh(self) -> bool:
        """Tell whether views are drawn anew in every epoch."""
        return self.views == "fresh"

    def place(self, name: str) -> str:
        """Return the key of the list of the set `name`, below `objectives`: `kd`, or `hard.objectives`."""
        return f"{name}.objectives" if self.model_fields_set - {"objectives"} else name

    @model_serializer
    def _as_written(self) -> Any:
        """With cached views the list, as it always was."""
        entries = [entry.model_dump() for entry in self.objectives]
        if self.teacher_dropping:
            return {"views": self.views, "teacher_dropping": self.teacher_dropping, "objectives": entries}
        return {"views": "fresh", "objectives": entries} if self.fresh else entries


def _from_list(value: Any, info: ValidationInfo) -> Any:
    """Of a list the set; what is wrong in it keeps its place."""
    if not isinstance(value, list | tuple):
        return value
    return ObjectiveSetConfig(
        objectives=TypeAdapter(tuple[ObjectiveEntry, ...]).validate_python(value, context=info.context)
    )


ObjectivesConfig = dict[Name, Annotated[ObjectiveSetConfig, BeforeValidator(_from_list)]]
"""The `objectives` section: objective sets by name."""


class ObjectivesSection(Section):
    """Declares that the section `objectives` is read, and that there is one."""

    objectives: ObjectivesConfig
