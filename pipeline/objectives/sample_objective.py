"""Declares objectives that compare every sample by itself, so that each sample has a value of its own.

A sample's value can have a weight of its own (`weighting: entropy`), EA-KD's. With H the entropy in nats of a softmax
at the temperature T', and H_max its bound, log K where the configuration gives no number:

    w_b = ½ · H(softmax(t_b / T')) · (1 + H(softmax(z_b / T')) / H_max),     L = (1 / B) Σ_b w_b L_b

EA-KD, ICCV 2025, arXiv 2311.13621, and the authors' code (cpsu00/EA-KD). The weights are constants: no gradient goes
through them. Deviation: the code adds 1e-10 within the logarithms of probabilities; here they are log-softmaxes, which
need nothing added. Weights are not divided by their mean, so an objective counts less, the surer its teacher is.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective, missing_signals
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.signals import Signals, SignalShapes

if TYPE_CHECKING:
    from pipeline.objectives.config import EntropyWeighting, ObjectiveEntry

OTHERS_HINT = "leave `weighting` out, or take an objective such as kd, dkd, vkd and fitnet"


class SampleObjective(Objective):
    """Compares the signals of every sample by itself: its terms are means of values that the samples have.

    A set can then leave a teacher out for some images and keep it for others (`teacher_dropping`), and have some
    samples count more than others (`weighting`).
    """

    weighting: EntropyWeighting | None = None
    """How much each sample counts; None has all count alike."""

    droppable: ClassVar[bool] = True
    """Whether it may be left out with its teacher: one of labels learns nothing from the teacher that it reads."""

    @abstractmethod
    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the terms of every sample, [B] each.

        Args:
            student, teacher, batch, progress: as for `Objective.forward`.
        """

    def weighted(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the terms of every sample, [B] each, times how much the sample counts.

        Args:
            student, teacher, batch, progress: as for `Objective.forward`.
        """
        terms = self.of_samples(student, teacher, batch, progress)
        if self.weighting is None:
            return terms
        weights = entropy_weights(student.logits, teacher.logits, self.weighting)
        return {term: weights * value for term, value in terms.items()}

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Compute the means of the terms over the batch."""
        return {term: value.mean() for term, value in self.weighted(student, teacher, batch, progress).items()}


def entropy_weights(student: Tensor, teacher: Tensor, weighting: EntropyWeighting) -> Tensor:
    """Compute w of every sample, [B], without gradient, in at least float32.

    Args:
        student, teacher: logits [B, K].
        weighting: its temperature and bound.
    """
    with torch.no_grad():
        bound = math.log(student.shape[-1]) if weighting.bound == "log-classes" else weighting.bound
        own, taught = (_entropy(logits, weighting.temperature) for logits in (student, teacher))
        return 0.5 * taught * (1 + own / bound)


def _entropy(logits: Tensor, temperature: float) -> Tensor:
    logs = torch.log_softmax(precise(logits) / temperature, dim=-1)
    return -(logs.exp() * logs).sum(-1)


def weigh_samples(
    objective: Objective,
    entry: ObjectiveEntry,
    student: SignalShapes,
    teacher: SignalShapes,
    context: Context,
    key: str,
) -> list[Problem]:
    """Have the samples of an objective count as its entry says; return what is wrong with that.

    Args:
        objective: of the entry; from now on it needs the logits of both networks, if the entry weighs samples.
        entry: of the configuration.
        student, teacher: the shapes of their signals.
        context: of the run.
        key: the dotted key of the entry, which problems name.
    """
    if entry.weighting is None:
        return []
    key = f"{key}.weighting"
    if not isinstance(objective, SampleObjective):
        what = f"{entry.label} has no value of every sample by itself, which `weighting` needs"
        return [Problem(key, what, fix=OTHERS_HINT)]
    if objective.kept() is not None:
        what = f"{entry.label} puts another classifier in place of the student's own, whose doubts would mean nothing"
        return [Problem(key, what, fix=OTHERS_HINT)]
    try:
        require_same_classes(student, teacher, key)
    except ConfigError as error:
        return list(error.problems)
    if student.logits < 2:
        return [Problem(key, "needs two classes or more: of one class nobody is in doubt", fix="leave it out")]
    objective.weighting = entry.weighting
    needs, logits = objective.needs, frozenset({"logits"})
    objective.needs = replace(needs, teacher=needs.teacher | logits, student=needs.student | logits)
    return missing_signals(Needs(teacher=logits), teacher, context, key)


def refuse_dropping(key: str, entry: ObjectiveEntry, objective: Objective) -> list[Problem]:
    """Return why an objective that names a teacher may not be left out with it for some images; nothing if it may.

    Args:
        key: of the entry, which problems name.
        entry: of the configuration.
        objective: of the entry.
    """
    if entry.teacher is None or (isinstance(objective, SampleObjective) and objective.droppable):
        return []
    if isinstance(objective, SampleObjective):
        what, fix = f"{entry.label} learns from labels, which are there without a teacher", "leave its `teacher` out"
        return [Problem(f"{key}.teacher", what, fix=fix)]
    what = f"{entry.label} has no loss of every image by itself, which `teacher_dropping` needs"
    fix = "leave `teacher_dropping` out, or take an objective such as vkd, fitnet, kd and lfcc"
    return [Problem(key, what, fix=fix)]


def unscored_doubts(key: str, entries: Sequence[ObjectiveEntry], keeping: Sequence[str]) -> list[Problem]:
    """Return the entries that weigh samples by a classifier which is not the one that the student ends with.

    Args:
        key: of the set, which problems name.
        entries: of the set.
        keeping: the labels of those that put another classifier in place of the student's own.
    """
    if not keeping:
        return []
    what = f"goes by the doubts of the student's own classifier, in whose place {keeping[0]} puts another"
    weighing = [index for index, entry in enumerate(entries) if entry.weighting and entry.label not in keeping]
    return [Problem(f"{key}.{index}.weighting", what, fix="leave it out") for index in weighing]
