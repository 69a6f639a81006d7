"""Computes the loss of a student from the cached outputs of its teacher."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from pipeline.api.cached_views import OWN_LOADER, CachedViews
from pipeline.api.caching import require_network
from pipeline.config import problems_of
from pipeline.errors import ConfigError, Problem, TrainingError
from pipeline.experiment.networks import shapes_of
from pipeline.experiment.objective_set import ObjectiveBuilder
from pipeline.models import TeacherNetwork
from pipeline.objectives import Batch, ObjectiveEntry, ObjectiveSet, ObjectiveSetConfig
from pipeline.signals import LinearHead, Signals
from pipeline.training import Memory
from pipeline.training.step import Step

NAME = "loss"
"""The name of the set of objectives in messages: `objectives.loss.0.temperature`."""

Objectives = Sequence[str | tuple[str, float] | tuple[str, float, Mapping[str, Any]] | Mapping[str, Any]]
"""Objectives as people write them: `kd`, `("kd", 0.9)`, `("kd", 0.9, {"temperature": 2})`, or the YAML's mapping."""


class DistillationLoss(nn.Module):
    """Computes the weighted sum of objectives for one student. `objective` makes it.

    Move it to the student's device, and give its parameters (projections of some methods) to the optimiser.

    objectives: the objectives with their weights. head: the teacher's, for objectives that read it. total_steps: of the
    training, for schedules; None if no objective has one.

    reads: the teacher's signals that it reads, for `data.loader(..., signals=loss.reads)`.
    terms: of the last call, every term by `name/term`, unweighted, without gradient: for logs.

    Example:
        >>> loss = objective([("hard-label", 0.1), ("kd", 0.9)], student, data)  # doctest: +SKIP
        >>> loss(student, batch).backward()  # doctest: +SKIP
        >>> sorted(loss.terms)  # doctest: +SKIP
        ['hard-label/cross-entropy', 'kd/kl']
    """

    calls: Tensor

    def __init__(self, objectives: ObjectiveSet, head: LinearHead | None, total_steps: int | None) -> None:
        super().__init__()
        self.objectives, self.total_steps = objectives, total_steps
        self.reads = frozenset(objectives.needs.teacher)
        self.terms: dict[str, Tensor] = {}
        self._flags = None if head is None else (head.linear, head.linear_final)
        self.register_buffer("_weight", None if head is None else head.weight, persistent=False)
        self.register_buffer("_bias", None if head is None else head.bias, persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, student: nn.Module | Signals, batch: Step) -> Tensor:
        """Return the loss of a batch, a scalar.

        student: the network, which is run on `batch.images`; or what it returned for them, where you need that too.
        batch: of `CachedViews`, on the student's device.
        """
        outputs: Signals = student if isinstance(student, Signals) else student(batch.images)
        if not isinstance(outputs, Signals):
            raise TrainingError(
                "the student does not return signals",
                expected="what as_network returns, or build_network",
                got=type(outputs).__name__,
                fix="student = as_network(module, ...), and loss(student, batch)",
            )
        assert batch.teacher_outputs is not None  # batches of a cache have them
        teacher = batch.teacher_outputs.decode(self._head())
        step = int(self.calls) if batch.index == OWN_LOADER else batch.index
        if self.training:
            self.calls += 1
        progress = min(step / self.total_steps, 1.0) if self.total_steps else 0.0
        known = Batch(batch.labels, batch.sample, batch.view, step, batch.mixed)
        value = self.objectives(outputs, teacher, known, progress)
        self.terms = value.terms
        total: Tensor = value.total
        return total

    def _head(self) -> LinearHead | None:
        if self._flags is None:
            return None
        weight: Any = self._weight
        bias: Any = self._bias
        return LinearHead(weight, bias, *self._flags)


def objective(
    objectives: Objectives,
    student: TeacherNetwork,
    data: CachedViews,
    *,
    total_steps: int | None = None,
    views: int = 1,
    seed: int = 0,
) -> DistillationLoss:
    """Make the loss of a student: objectives by name, each with its weight.

    From now on the student returns the maps that the objectives compare, and no others. `pipeline methods` lists the
    objectives, what each reads and its options. A warning says what an objective leaves out for this student.

    Args:
        objectives: names; pairs of a name and a weight; triples with options besides; or mappings as in a
            configuration, with `name`, `weight`, `schedule` and the options.
        student: what `as_network` or `build_network` returns.
        data: the cache that it learns from.
        total_steps: optimiser steps of the whole training, `epochs * len(loader)`: a `schedule` goes by it.
        views: of each sample in a batch, as in `data.loader`.
        seed: of what objectives draw: the first weights of projections, negatives.

    Raises:
        ConfigError: unknown names and options; signals that the cache does not hold; every problem at once.
        ModelError: the student has no map that an objective compares.

    Example:
        >>> loss = objective(["kd", ("lfcc", 10, {"scales": [1, 2]})], student, data)  # doctest: +SKIP
    """
    network = require_network(student, "the student")
    config = _config(objectives)
    if total_steps is None:
        what, fix = "has a schedule, which goes by the progress of training", "give total_steps=epochs * len(loader)"
        scheduled = [i for i, entry in enumerate(config.objectives) if entry.schedule is not None]
        if scheduled:
            raise ConfigError([Problem(f"objectives.{NAME}.{i}.schedule", what, fix=fix) for i in scheduled])
    memory = Memory(data.source, data.samples.labels, data.classes)
    builder = ObjectiveBuilder(shapes_of(network), data.source.shapes, data, seed, memory, views)
    built = builder.build(NAME, config)
    if built.kept() is not None:
        what = "its student ends in the teacher's classifier, which is no part of your module"
        fix = "train it with `pipeline train-student`"
        raise ConfigError([Problem(f"objectives.{NAME}", what, fix=fix)])
    for note in built.notes:
        warnings.warn(note, stacklevel=2)
    maps = [name.removeprefix("features/") for name in built.needs.student if name.startswith("features/")]
    network.keep_taps(maps)
    head = data.source.primary.head if "head" in built.needs.teacher else None
    return DistillationLoss(built, head, total_steps)


def _config(objectives: Objectives) -> ObjectiveSetConfig:
    """Return the objectives as a section of a configuration. Raises ConfigError, every problem at once."""
    entries: list[ObjectiveEntry] = []
    problems: list[Problem] = []
    for index, given in enumerate(objectives):
        try:
            entries.append(ObjectiveEntry.model_validate(_entry(given)))
        except ValidationError as error:
            place = f"objectives.{NAME}.{index}"
            found = problems_of(error)
            problems += [Problem(f"{place}.{p.key}", p.what, p.expected, p.got, p.fix) for p in found]
    if not objectives:
        problems.append(Problem(f"objectives.{NAME}", "names no objective", fix="such as [('kd', 0.9)]"))
    if problems:
        raise ConfigError(problems)
    return ObjectiveSetConfig(objectives=tuple(entries))


def _entry(given: object) -> dict[str, Any]:
    if isinstance(given, str):
        return {"name": given}
    if isinstance(given, Mapping):
        return dict(given)
    name, weight, *options = given if isinstance(given, tuple | list) and 2 <= len(given) <= 3 else (given, 1.0)
    return {"name": name, "weight": weight, **(options[0] if options else {})}
