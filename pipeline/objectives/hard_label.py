"""Hard labels: cross-entropy with them, the student's own task.

    L = -(1/B) Σ_b log softmax(z_b)[y_b]

With label smoothing ε the target is (1 - ε) onehot(y) + ε/K. Where views mix two samples, the target is
mix · onehot(labels) + (1 - mix) · onehot(labels_mixed). Unlabeled samples (-1) are left out; the mean is over
the labeled ones. No deviation from the textbook.
"""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives._base import Batch, Context, Needs, Objective
from pipeline.signals import Signals, SignalShapes


class Options(Section):
    """label_smoothing: ε in [0, 1)."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample in nats, 0 where the label is -1. logits [B, K], labels [B]; returns [B]."""
    logits = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.cross_entropy(logits, labels, ignore_index=-1, label_smoothing=label_smoothing, reduction="none")


class HardLabel(Objective):
    """Mean cross-entropy over the labeled samples of a batch."""

    needs = Needs()

    def __init__(self, label_smoothing: float) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `cross-entropy`, in nats."""
        value = cross_entropy(student.logits, batch.labels, self.label_smoothing)
        if batch.labels_mixed is not None and batch.mix is not None:
            other = cross_entropy(student.logits, batch.labels_mixed, self.label_smoothing)
            value = batch.mix * value + (1 - batch.mix) * other
        labeled = (batch.labels >= 0).sum().clamp(min=1)
        return {"cross-entropy": value.sum() / labeled}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """The objective for any student."""
    return HardLabel(options.label_smoothing)
