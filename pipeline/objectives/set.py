"""Combines objectives into a weighted sum, as the configuration names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import ConfigError, Problem, during, unknown_name
from pipeline.objectives.base import Batch, Context, Needs, Objective, Terms, build_objective
from pipeline.objectives.config import ObjectiveEntry
from pipeline.objectives.dropping import TeacherDropping, Weighted
from pipeline.objectives.neighbours import Neighbours, differing_wishes, named_wishes, one_wish
from pipeline.objectives.sample_objective import SampleObjective, refuse_dropping, unscored_doubts, weigh_samples
from pipeline.objectives.standardised import StandardisedTeacher
from pipeline.signals import Signals, SignalShapes

if TYPE_CHECKING:
    from pipeline.models.reused import KeptPart


class KnownTeacher(NamedTuple):
    """Holds what objectives are built with, of a teacher that they read.

    Args:
        shapes: of its signals.
        context: of the run, with its signals of any sample.
    """

    shapes: SignalShapes
    context: Context


class ObjectiveSet(nn.Module):
    """Computes the weighted sum of several objectives.

    Args:
        name: of the set, for errors.
        entries: its objectives.
        student, teacher: shapes of the networks' signals.
        context: of the run.
        others: the teachers that objectives may name beside `teacher`.
        own: the name of `teacher`; None if it has none.
        teacher_dropping: the probability of leaving out teachers that objectives name, for every image.

    Attributes:
        teacher_of_kept: the name of the teacher whose classifier the student keeps; None for `teacher`.

    Raises ConfigError, for all entries at once, as `build_objective` does, for names of teachers that are not there,
    and if two objectives would replace the student's classifier.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[ObjectiveEntry],
        student: SignalShapes,
        teacher: SignalShapes,
        context: Context,
        others: Mapping[str, KnownTeacher] | None = None,
        own: str | None = None,
        teacher_dropping: float = 0.0,
    ) -> None:
        super().__init__()
        self.entries = tuple(entries)
        self.teachers = tuple(None if entry.teacher == own else entry.teacher for entry in entries)
        known: dict[str | None, KnownTeacher] = {None: KnownTeacher(teacher, context)}
        known |= dict((others or {}).items())
        named = [entry.teacher for entry in entries if entry.teacher is not None]
        self.dropping = TeacherDropping(named, teacher_dropping, context.seed) if teacher_dropping else None
        self.members, self.standardised = nn.ModuleList(), nn.ModuleDict()
        self.teacher_of_kept: str | None = None
        problems: list[Problem] = []
        keeping: list[str] = []
        if not entries:
            problems.append(Problem(f"objectives.{name}", "is empty", fix="name at least one objective"))
        labels = [entry.label for entry in entries]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            fix = "give each entry a `label` of its own"
            problems.append(Problem(f"objectives.{name}", f"has several entries named {label!r}", fix=fix))
        for index, (entry, wanted) in enumerate(zip(self.entries, self.teachers, strict=True)):
            key = f"objectives.{name}.{index}"
            if wanted not in known:
                problems.append(_unknown_teacher(f"{key}.teacher", str(wanted), [own, *(others or {})]))
                continue
            try:
                shapes, known_context = known[wanted]
                if entry.standardise != "none":
                    standard = StandardisedTeacher(entry.standardise, known_context)
                    shapes, known_context = replace(shapes, standardised=True), standard.context
                    self.standardised[str(index)] = standard
                member = build_objective(entry.name, entry.options, student, shapes, known_context, key)
                if entry.standardise != "none":
                    problems += standard.bind(member.needs, key)
                problems += weigh_samples(member, entry, student, shapes, known_context, key)
            except ConfigError as error:
                problems += error.problems
            else:
                self.members.append(member)
                problems += refuse_dropping(key, entry, member) if teacher_dropping else []
                if (kept := member.kept()) is not None:
                    keeping.append(entry.label)
                    self.teacher_of_kept = wanted
                    problems += _other_classes(key, wanted, shapes, context) if kept.own is None else []
        if len(keeping) > 1:
            what = f"{' and '.join(keeping)} would each stand in for the student's classifier, and it has one"
            problems.append(Problem(f"objectives.{name}", what, fix="leave all but one of them out"))
        problems += unscored_doubts(f"objectives.{name}", self.entries, keeping)
        if problems := problems or differing_wishes(f"objectives.{name}", self._wishes):
            raise ConfigError(problems)

    @property
    def _wishes(self) -> list[Neighbours | None]:
        return named_wishes((teacher, member.needs.neighbours) for teacher, member in self._built)

    @property
    def _built(self) -> list[tuple[str | None, Objective]]:
        """Return the objectives, each with the name of its teacher."""
        pairs = zip(self.teachers, self.members, strict=True)
        return [(teacher, member) for teacher, member in pairs if isinstance(member, Objective)]

    @property
    def needs(self) -> Needs:
        """Return the union of what the objectives need; of the teacher, what those do that name no other."""
        every = [member.needs for _, member in self._built]
        return Needs(
            teacher=frozenset().union(*(member.needs.teacher for name, member in self._built if name is None)),
            student=frozenset().union(*(needs.student for needs in every)),
            labels=any(needs.labels for needs in every),
            views=max((needs.views for needs in every), default=1),
            neighbours=one_wish(self._wishes),
        )

    @property
    def needs_of_others(self) -> dict[str, frozenset[str]]:
        """Return the signals that are read of each teacher that objectives name."""
        found: dict[str, frozenset[str]] = {}
        for name, member in self._built:
            if name is not None:
                found[name] = found.get(name, frozenset()) | member.needs.teacher
        return found

    @property
    def needs_by_teacher(self) -> dict[str | None, frozenset[str]]:
        """Return the signals that are read of each teacher; None is the one that objectives read which name none."""
        found: dict[str | None, frozenset[str]] = {None: self.needs.teacher}
        for name, signals in self.needs_of_others.items():
            found[name] = signals
        return found

    @property
    def notes(self) -> list[str]:
        """Return what is to be known of objectives, such as what they leave out, each after the objective's label."""
        members = [member for member in self.members if isinstance(member, Objective)]
        return [
            f"{entry.label} {note}"
            for entry, member in zip(self.entries, members, strict=True)
            for note in member.notes
        ]

    def weights(self, progress: float) -> dict[str, float]:
        """Return the weight of every objective, by its label.

        Args:
            progress: the share of training that is done, in [0, 1].
        """
        return {entry.label: _weight(entry, progress) for entry in self.entries}

    def kept(self) -> KeptPart | None:
        """Return what the student keeps of an objective at inference; None for nothing."""
        every = (member.kept() for member in self.members if isinstance(member, Objective))
        return next((projector for projector in every if projector is not None), None)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Have all objectives that are on do what they do on the host.

        Args:
            batch, progress: as for `Objective.prepare`.
        """
        for entry, (_, member) in zip(self.entries, self._built, strict=True):
            if _weight(entry, progress):
                with during(lambda entry=entry: f"objective {entry.label}"):  # type: ignore[misc]
                    member.prepare(batch, progress)

    def __call__(
        self,
        student: Signals,
        teacher: Signals,
        batch: Batch,
        progress: float,
        others: Mapping[str, Signals] | None = None,
    ) -> Terms:
        """`prepare`, and `forward`.

        Args:
            student, teacher, batch, progress, others: as for `forward`.
        """
        self.prepare(batch, progress)
        return self.compare(student, teacher, batch, progress, others)

    def compare(
        self,
        student: Signals,
        teacher: Signals,
        batch: Batch,
        progress: float,
        others: Mapping[str, Signals] | None = None,
        factors: Mapping[str, float | Tensor] | None = None,
    ) -> Terms:
        """Call this where `prepare` was called with the batch.

        Args:
            student, teacher, batch, progress, others, factors: as for `forward`.
        """
        terms: Terms = super().__call__(student, teacher, batch, progress, others, factors)
        return terms

    def forward(
        self,
        student: Signals,
        teacher: Signals,
        batch: Batch,
        progress: float,
        others: Mapping[str, Signals] | None = None,
        factors: Mapping[str, float | Tensor] | None = None,
    ) -> Terms:
        """Compute the weighted total, and every term by `label/term`, unweighted.

        Args:
            student, teacher, batch, progress: as for `Objective.forward`.
            others: the signals of the teachers that objectives name.
            factors: the weights of the objectives that are on, by label; None has them from `progress`.
        """
        factors = self.weights(progress) if factors is None else factors
        known: dict[str | None, Signals] = {None: teacher}
        known |= dict((others or {}).items())
        weighted: list[Weighted] = []
        terms: dict[str, Tensor] = {}
        for index, (entry, (name, member)) in enumerate(zip(self.entries, self._built, strict=True)):
            factor = factors.get(entry.label, 0.0)
            if isinstance(factor, float) and factor == 0:
                continue  # not computed: an objective that is off costs nothing
            read = self.standardised[str(index)](known[name]) if str(index) in self.standardised else known[name]
            dropped = entry.teacher if self.dropping is not None else None
            with during(lambda entry=entry: f"objective {entry.label}"):  # type: ignore[misc]
                if dropped is not None:
                    assert isinstance(member, SampleObjective)  # others are refused
                    found = member.weighted(student, read.detached(), batch, progress)
                else:
                    found = member.compare(student, read, batch, progress)
            for term, value in found.items():
                terms[f"{entry.label}/{term}"] = value.mean()
                weighted.append((dropped, factor * value))
        values = [value for _, value in weighted]
        if self.dropping is not None:
            values, shares = self.dropping.total(weighted, batch)
            terms.update(shares)
        total = reduce(torch.add, values) if values else student.logits.sum() * 0.0
        return Terms(total, {name: value.detach() for name, value in terms.items()})

    def parameter_groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Return the objectives' own parameters, each group at its multiple of the student's `learning_rate`."""
        groups = []
        for entry, member in zip(self.entries, self.members, strict=True):
            own = [parameter for parameter in member.parameters() if parameter.requires_grad]
            if own:
                groups.append({"params": own, "lr": learning_rate * entry.learning_rate})
        return groups


def _weight(entry: ObjectiveEntry, progress: float) -> float:
    return entry.weight * (entry.schedule.factor(progress) if entry.schedule else 1.0)


def _other_classes(key: str, name: str | None, teacher: SignalShapes, context: Context) -> list[Problem]:
    if name is None or not context.classes or teacher.classes == context.classes:
        return []
    what = f"its student would end in the classifier of {name!r}, which has other classes than the data"
    fix = "take an objective that the student does not keep, such as srrl"
    return [Problem(key, what, str(context.classes), str(teacher.classes), fix)]


def _unknown_teacher(key: str, name: str, known: Sequence[str | None]) -> Problem:
    names = [each for each in known if each is not None]
    if names:
        return unknown_name(key, name, names)
    fix = "name the teachers in `caches`, such as caches: [{path: ..., teacher: " + name + "}]"
    return Problem(key, "there is no teacher of that name", got=name, fix=fix)
