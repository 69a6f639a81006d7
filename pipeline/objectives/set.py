"""Combines objectives into a weighted sum, as the configuration names them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, TypeAdapter, model_serializer, model_validator
from torch import Tensor, nn

from pipeline import plugins
from pipeline.config import Name, Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import METHODS, Batch, Context, Needs, Objective, Terms, build_objective
from pipeline.signals import Signals, SignalShapes

if TYPE_CHECKING:
    from pipeline.models.reused import Projector

RESERVED = ("name", "weight", "label", "schedule", "learning_rate")


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


class ObjectiveEntry(Section):
    """Configures one objective of a set; its name alone will do. Other keys than these are options of the objective.

    weight: factor of its value. label: its name in logs, needed where a set holds an objective twice. learning_rate:
    multiplies the student's learning rate for the objective's own parameters. schedule: of the weight; null keeps it.
    """

    name: str
    weight: float = Field(1.0, ge=0)
    label: str = ""
    schedule: Schedule | None = None
    learning_rate: float = Field(1.0, gt=0)
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        if isinstance(value, ObjectiveEntry):
            return value
        entry = plugins.as_mapping(value, plugins.names(METHODS))
        given = {key: item for key, item in entry.items() if key == "name" or key not in RESERVED}
        options = plugins.choose(METHODS, given).options.for_identity()
        fields = {key: item for key, item in entry.items() if key in RESERVED and item is not None}
        return {"label": entry["name"], **fields, "options": options}

    @model_serializer
    def _flat(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"name": self.name, "weight": self.weight, "label": self.label}
        entry["schedule"] = self.schedule.model_dump() if self.schedule else None
        return {**entry, "learning_rate": self.learning_rate, **self.options}


class ObjectiveSetConfig(Section):
    """Configures an objective set: a list of objectives, or `{views: fresh, objectives: [...]}`.

    views: `cached`, those that the teacher saw, or `fresh`: new ones are drawn for every epoch, of the operations and
    the seed of the section `views`. That is for sets that read nothing of the teacher, such as `hard-label` alone: no
    cache is needed.
    """

    views: Literal["cached", "fresh"] = "cached"
    objectives: tuple[ObjectiveEntry, ...]

    @property
    def fresh(self) -> bool:
        """Tell whether views are drawn anew in every epoch."""
        return self.views == "fresh"

    def place(self, name: str) -> str:
        """Return the key of the list of the set `name`, below `objectives`: `kd`, or `hard.objectives`."""
        return f"{name}.objectives" if "views" in self.model_fields_set else name

    @model_serializer
    def _as_written(self) -> Any:
        """With cached views the list, as it always was."""
        entries = [entry.model_dump() for entry in self.objectives]
        return {"views": "fresh", "objectives": entries} if self.fresh else entries


def _from_list(value: Any) -> Any:
    """Of a list the set; what is wrong in it keeps its place."""
    if not isinstance(value, list | tuple):
        return value
    return ObjectiveSetConfig(objectives=TypeAdapter(tuple[ObjectiveEntry, ...]).validate_python(value))


ObjectivesConfig = dict[Name, Annotated[ObjectiveSetConfig, BeforeValidator(_from_list)]]
"""The `objectives` section: objective sets by name."""


class ObjectivesSection(Section):
    """Declares that the section `objectives` is read, and that there is one."""

    objectives: ObjectivesConfig


class ObjectiveSet(nn.Module):
    """Computes the weighted sum of several objectives.

    name: of the set, for errors. config: its section. student, teacher: shapes of the networks' signals. context: of
    the run. Raises ConfigError, for all entries at once, as `build_objective` does, and if two of them would replace
    the student's classifier.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[ObjectiveEntry],
        student: SignalShapes,
        teacher: SignalShapes,
        context: Context,
    ) -> None:
        super().__init__()
        self.entries = tuple(entries)
        self.members = nn.ModuleList()
        problems: list[Problem] = []
        keeping: list[str] = []
        if not entries:
            problems.append(Problem(f"objectives.{name}", "is empty", fix="name at least one objective"))
        labels = [entry.label for entry in entries]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            fix = "give each entry a `label` of its own"
            problems.append(Problem(f"objectives.{name}", f"has several entries named {label!r}", fix=fix))
        for index, entry in enumerate(entries):
            key = f"objectives.{name}.{index}"
            try:
                member = build_objective(entry.name, entry.options, student, teacher, context, key)
            except ConfigError as error:
                problems += error.problems
            else:
                self.members.append(member)
                keeping += [entry.label] if member.kept() is not None else []
        if len(keeping) > 1:
            what = f"{' and '.join(keeping)} would each stand in for the student's classifier, and it has one"
            problems.append(Problem(f"objectives.{name}", what, fix="leave all but one of them out"))
        if problems:
            raise ConfigError(problems)

    @property
    def needs(self) -> Needs:
        """Return the union of what the objectives need."""
        every = [member.needs for member in self.members if isinstance(member, Objective)]
        return Needs(
            teacher=frozenset().union(*(needs.teacher for needs in every)),
            student=frozenset().union(*(needs.student for needs in every)),
            labels=any(needs.labels for needs in every),
            views=max((needs.views for needs in every), default=1),
        )

    @property
    def notes(self) -> list[str]:
        """Return what objectives leave out for these networks, each with the label of the objective."""
        members = [member for member in self.members if isinstance(member, Objective)]
        return [
            f"{entry.label} {note}"
            for entry, member in zip(self.entries, members, strict=True)
            for note in member.notes
        ]

    def kept(self) -> Projector | None:
        """Return what the student keeps of an objective at inference; None for nothing."""
        every = (member.kept() for member in self.members if isinstance(member, Objective))
        return next((projector for projector in every if projector is not None), None)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> Terms:
        """Compute the weighted total, and every term by `label/term`, unweighted.

        student, teacher, batch, progress: as for `Objective.forward`.
        """
        total: Tensor | None = None
        terms: dict[str, Tensor] = {}
        for entry, member in zip(self.entries, self.members, strict=True):
            factor = entry.weight * (entry.schedule.factor(progress) if entry.schedule else 1.0)
            if factor == 0:
                continue  # not computed: an objective that is off costs nothing
            for term, value in member(student, teacher, batch, progress).items():
                terms[f"{entry.label}/{term}"] = value
                total = factor * value if total is None else total + factor * value
        if total is None:
            total = student.logits.sum() * 0.0
        return Terms(total, {name: value.detach() for name, value in terms.items()})

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the objectives' own parameters, each group at its multiple of the student's `learning_rate`."""
        groups = []
        for entry, member in zip(self.entries, self.members, strict=True):
            own = [parameter for parameter in member.parameters() if parameter.requires_grad]
            if own:
                groups.append({"params": own, "lr": learning_rate * entry.learning_rate})
        return groups
