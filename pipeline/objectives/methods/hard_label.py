"""Hard labels: cross-entropy with them, the student's own task.

    L = -(1/B) Σ_b w[y_b] log softmax(z_b)[y_b]

With label smoothing ε the target is (1 - ε) onehot(y) + ε/K. Where a view mixes two samples, its target is
λ onehot(y) + (1 - λ) onehot(y'), with the other's label y' and the share λ of the sample's own image. Unlabeled samples
(-1) are left out, and so are views of which any part has no label: all that is known of their target is a share of it.
The mean is over the others. Without `class_weights` every w is 1, and there is no deviation from the textbook. The
weights are scaled so that their mean over the labeled training samples is 1, and the sum is divided by B, not by the
sum of the batch's own weights: so the value of a batch is the mean of those of its parts, whatever classes fall into
them.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.config import ClassWeights
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS: tuple[str, ...] = ()


class Options(Section):
    """label_smoothing: ε in [0, 1). class_weights: `balanced` lets every class count alike, however many samples it
    has; a list gives the weight of each class, in the order of the labels.
    """

    later: ClassVar[frozenset[str]] = frozenset({"class_weights"})

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: ClassWeights = "none"


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample in nats, 0 where the label is -1. logits [B, K], labels [B]; returns [B]."""
    logits = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=label_smoothing, reduction="none")


def weights_of(classes: ClassWeights, labels: Tensor, count: int) -> Tensor:
    """The weight of each of `count` classes, float32 [K]: their mean over the labeled ones of `labels` is 1.

    labels: [N] int64, of the training samples, -1 where unlabeled. A class without a sample has a weight that
    nothing reads.
    """
    counts = torch.bincount(labels[labels >= 0], minlength=count).double()
    if isinstance(classes, str):
        weights = 1 / counts.clamp(min=1) if classes == "balanced" else torch.ones_like(counts)
    else:
        weights = torch.tensor(classes, dtype=torch.float64)
    return (weights * counts.sum() / (weights * counts).sum()).float()


class HardLabel(SampleObjective):
    """Mean cross-entropy over the labeled samples of a batch. weights: [K] of the classes, or None."""

    needs = Needs()
    droppable = False
    weights: Tensor | None

    def __init__(self, label_smoothing: float, weights: Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weights", weights, persistent=False)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `cross-entropy`, in nats: 0 without a label, B / (those with one) times as much of the others."""
        value, labeled = self._values(student, batch)
        return {"cross-entropy": value * (len(value) / labeled.sum().clamp(min=1))}

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `cross-entropy`, in nats."""
        if self.weighting is not None:
            return super().forward(student, teacher, batch, progress)
        value, labeled = self._values(student, batch)
        return {"cross-entropy": value.sum() / labeled.sum().clamp(min=1)}

    def _values(self, student: Signals, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the cross-entropies [B], 0 without a label, and which samples have one, bool [B]."""
        value, labeled = self._weighted(student.logits, batch.labels), batch.labels >= 0
        if batch.mixed is not None:
            share, other = batch.mixed.share, batch.mixed.labels
            value = share * value + (1 - share) * self._weighted(student.logits, other)
            labeled = (labeled | (share == 0)) & ((other >= 0) | (share == 1))
            value = value * labeled
        return value, labeled

    def _weighted(self, logits: Tensor, labels: Tensor) -> Tensor:
        value = cross_entropy(logits, labels, self.label_smoothing)
        return value if self.weights is None else value * self.weights[labels.clamp(min=0)]


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """The objective for any student. Raises ConfigError unless `class_weights` has one of each class."""
    chosen = options.class_weights
    if chosen == "none" or context.labels is None:
        return HardLabel(options.label_smoothing)
    if not isinstance(chosen, str) and len(chosen) != context.classes:
        expected = f"a weight of each of {context.classes} classes"
        what = "does not fit the classes of the data"
        raise ConfigError([Problem(f"{key}.class_weights", what, expected, f"{len(chosen)} weights")])
    return HardLabel(options.label_smoothing, weights_of(chosen, context.labels, context.classes))
