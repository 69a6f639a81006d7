"""Computes the loss of a student from the cached outputs of its teacher."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.api.arguments import arguments_of, in_python, one_or_more, refuse_labels_beyond
from pipeline.api.cached_views import OWN_LOADER, CachedViews
from pipeline.api.caching import require_network
from pipeline.api.named_teachers import BETWEEN, KnownHeads
from pipeline.config import problems_of
from pipeline.errors import ArgumentError, ModelError, Problem, TrainingError
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.objective_set import ObjectiveBuilder, OtherTeacher
from pipeline.models import TeacherNetwork
from pipeline.objectives import ObjectiveEntry, ObjectiveSet, ObjectiveSetConfig
from pipeline.signals import LinearHead, Signals
from pipeline.training import Memory
from pipeline.training.encoded_outputs import decode_others
from pipeline.training.step import Step

NAME = "loss"
"""The name of the set of objectives in messages: `objectives.loss.0.temperature`."""

COMPARED_TAPS = "compared_taps"
"""The attribute of a student that has the maps which its losses compare."""

OneObjective = str | tuple[str, float] | tuple[str, float, Mapping[str, Any]] | Mapping[str, Any]
Objectives = OneObjective | Sequence[OneObjective]
"""Objectives as people write them: `kd`, `("kd", 0.9)`, `("kd", 0.9, {"temperature": 2})`, or the YAML's mapping."""


class DistillationLoss(nn.Module):
    """Computes the weighted sum of objectives for one student. `objective` makes it.

    Move it to the student's device, and give its parameters (projections of some methods) to the optimiser.

    Args:
        objectives: the objectives with their weights.
        heads: those that objectives read, by the names of their teachers; None for the cache's own teacher.
        total_steps: of the training, for schedules; None if no objective has one.

    Attributes:
        reads: the teacher's signals that it reads, for `data.loader(..., signals=loss.reads)`.
        neighbours: that it is to have in its batches, for `data.loader(..., neighbours=loss.neighbours)`; None if it
            asks for none.
        terms: of the last call, every term by `name/term`, unweighted, without gradient: for logs.

    Example:
        >>> loss = objective([("hard-label", 0.1), ("kd", 0.9)], student, data)  # doctest: +SKIP
        >>> loss(student, batch).backward()  # doctest: +SKIP
        >>> sorted(loss.terms)  # doctest: +SKIP
        ['hard-label/cross-entropy', 'kd/kl']
    """

    calls: Tensor

    def __init__(
        self, objectives: ObjectiveSet, heads: Mapping[str | None, LinearHead], total_steps: int | None
    ) -> None:
        super().__init__()
        self.objectives, self.total_steps = objectives, total_steps
        self._reads = objectives.needs_by_teacher
        self.reads = frozenset(
            signal if name is None else f"{name}{BETWEEN}{signal}"
            for name, signals in self._reads.items()
            for signal in signals
        )
        self.neighbours = objectives.needs.neighbours
        self.terms: dict[str, Tensor] = {}
        self.heads = KnownHeads(heads)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student: nn.Module | Signals, batch: Step) -> Tensor:
        """Return the loss of a batch, a scalar.

        Args:
            student: the network, which is run on `batch.images`; or what it returned for them, where you need that too.
            batch: of `CachedViews`, on the student's device.
        """
        outputs = student if isinstance(student, Signals) else _run(student, batch.images)
        _refuse_lacking(self.objectives.needs.student, outputs, "the student did not return", STUDENT_HINT)
        assert batch.teacher_outputs is not None  # batches of a cache have them
        teacher = batch.teacher_outputs.decode(self.heads.of(None))
        others = decode_others(batch.teacher_outputs, self.heads.others())
        for name, signals in self._reads.items():
            read = teacher if name is None else others.get(name)
            whose = "" if name is None else f"{name}'s "
            _refuse_lacking(signals, read, f"the batch was read without {whose}".rstrip(), READS_HINT)
        step = int(self.calls) if batch.index == OWN_LOADER else batch.index
        if self.total_steps and step >= self.total_steps and not int(self.calls):
            what = f"training begins at step {step} of {self.total_steps}, where schedules have ended"
            warnings.warn(f"{what}: data.loader(..., epoch=0) begins with the first epoch", stacklevel=2)
        if self.training:
            self.calls += 1
        progress = min(step / self.total_steps, 1.0) if self.total_steps else 0.0
        known = replace(batch.known(), step=step)
        value = self.objectives(outputs, teacher, known, progress, others)
        self.terms = value.terms
        total: Tensor = value.total
        return total


READS_HINT = "read what the loss needs: data.loader(..., signals=loss.reads)"
STUDENT_HINT = "run the student that the loss was made for, after `objective`, and call keep_taps of it nowhere else"


def _run(student: nn.Module, images: Tensor) -> Signals:
    """Run a student on images. Raises TrainingError if it is a module that was not made a network of."""
    try:
        outputs = student(images)
    except (RuntimeError, TypeError, ValueError) as error:
        if any(isinstance(each, TeacherNetwork) for each in student.modules()):
            raise  # a network, or what wraps one
        _refuse_module(type(student).__name__, error)
    if not isinstance(outputs, Signals):
        _refuse_module(type(outputs).__name__)
    return outputs


def _refuse_module(got: str, cause: Exception | None = None) -> NoReturn:
    raise TrainingError(
        "the student does not return signals",
        expected="what as_network returns, or build_network",
        got=got,
        fix="student = as_network(module, ...), and loss(student, batch)",
    ) from cause


def _refuse_lacking(needed: Collection[str], signals: Signals | None, what: str, fix: str) -> None:
    """Raise TrainingError for signals that objectives read and that are not there. signals: None if nothing is."""
    there: set[str] = set()
    if signals is not None:
        there = {f"features/{tap}" for tap in signals.features} | {f"extras/{name}" for name in signals.extras}
        there |= {"logits", "head"} | ({"embedding"} if signals.embedding is not None else set())
    if missing := sorted(set(needed) - there):
        got = ", ".join(sorted(there)) or "nothing"
        raise TrainingError(f"{what} {', '.join(missing)}, which the loss reads", got=got, fix=fix)


def objective(
    objectives: Objectives,
    student: TeacherNetwork,
    data: CachedViews,
    *,
    total_steps: int | None = None,
    views: int = 1,
    seed: int = 0,
    teacher_dropping: float = 0.0,
) -> DistillationLoss:
    """Make the loss of a student: objectives by name, each with its weight.

    From now on the student returns the maps that the objectives compare, those of all losses that were made for it, and
    no others. Loaders of `data` that are made from now on begin with epoch 0. `pipeline methods` lists the objectives,
    what each reads and its options. A warning says what an objective leaves out for this student.

    Args:
        objectives: names; pairs of a name and a weight; triples with options besides; or mappings as in a
            configuration, with `name`, `weight`, `schedule` and the options. One alone needs no list. Among the options
            of each are `teacher`, a name of `CachedViews(..., name=..., teachers=...)`, `standardise` and
            `weighting`.
        student: what `as_network` or `build_network` returns.
        data: the cache that it learns from.
        total_steps: optimiser steps of the whole training, `epochs * len(loader)`: a `schedule` goes by it.
        views: of each sample in a batch, as in `data.loader`.
        seed: of what objectives draw: the first weights of projections, negatives.
        teacher_dropping: the probability of leaving a teacher out that objectives name, for every image.

    Raises:
        ConfigError: unknown names and options; signals that the cache does not hold; every problem at once.
        DataError: labels beyond the student's classes, for `hard-label`.
        ModelError: the student has no map that an objective compares.

    Example:
        >>> loss = objective(["kd", ("lfcc", 10, {"scales": [1, 2]})], student, data)  # doctest: +SKIP
    """
    network = require_network(student, "the student")
    if not isinstance(data, CachedViews):
        fix = "data = CachedViews('cache.zarr', photos), and objective(..., student, data)"
        what = "a loss is made for the views of a cache that is open"
        raise ModelError(what, expected="CachedViews", got=type(data).__name__, fix=fix)
    config = _config(objectives, teacher_dropping)
    if total_steps is None:
        what, fix = "has a schedule, which goes by the progress of training", "give total_steps=epochs * len(loader)"
        scheduled = [i for i, entry in enumerate(config.objectives) if entry.schedule is not None]
        if scheduled:
            raise ArgumentError([Problem(f"objectives[{i}].schedule", what, fix=fix) for i in scheduled], "objective")
    shapes = shapes_of(network)
    if any(entry.name == "hard-label" for entry in config.objectives):
        fix = "build the student with as many classes as the labels have"
        refuse_labels_beyond(data.samples.labels, shapes.logits, "the student", fix)
    source, labels, classes = data.source, data.samples.labels, data.classes
    others = {name: OtherTeacher(each.shapes, Memory(each, labels, classes)) for name, each in source.others.items()}
    memory = Memory(source, labels, classes)
    builder = ObjectiveBuilder(shapes, source.shapes, data, seed, memory, views, source.own, others)
    with arguments_of("objective"):
        built = builder.build(NAME, config)
    if built.kept() is not None:
        what = "its student ends in a projection and the classifier behind it, which are no part of your module"
        fix = "train it with `pipeline train-student`"
        raise ArgumentError([Problem("objectives", what, fix=fix)], "objective")
    for note in built.notes:
        warnings.warn(in_python(note), stacklevel=2)
    maps = {name.removeprefix("features/") for name in built.needs.student if name.startswith("features/")}
    maps |= getattr(network, COMPARED_TAPS, set())  # of losses that were made before and are used still
    network.keep_taps(sorted(maps))
    setattr(network, COMPARED_TAPS, frozenset(maps))
    data.begin_training(built.needs.neighbours)
    heads: dict[str | None, LinearHead] = {}
    for name, signals in built.needs_by_teacher.items():
        head = (source if name is None else source.others[name]).primary.head
        if "head" in signals and head is not None:
            heads[name] = head
    return DistillationLoss(built, heads, total_steps)


def _config(objectives: Objectives, teacher_dropping: float) -> ObjectiveSetConfig:
    """Return the objectives as a section of a configuration. Raises ConfigError, every problem at once."""
    entries: list[ObjectiveEntry] = []
    problems: list[Problem] = []
    for index, given in enumerate(one_or_more(objectives)):
        try:
            entries.append(ObjectiveEntry.model_validate(_entry(given)))
        except ValidationError as error:
            problems += problems_of(error, f"objectives[{index}]")
    if not entries and not problems:
        problems.append(Problem("objectives", "names no objective", fix="such as [('kd', 0.9)]"))
    if problems:
        raise ArgumentError(problems, "objective")
    try:
        dropping = {"teacher_dropping": teacher_dropping} if teacher_dropping else {}
        return ObjectiveSetConfig.model_validate({"objectives": tuple(entries), **dropping})
    except ValidationError as error:
        raise ArgumentError(problems_of(error), "objective") from None


def _entry(given: object) -> dict[str, Any]:
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, Mapping):
        return dict(given)
    name, weight, *options = given if isinstance(given, tuple | list) and 2 <= len(given) <= 3 else (given, 1.0)
    return {"name": name, "weight": weight, **(options[0] if options else {})}
