"""What methods on embeddings have in common: reading both, and comparing all samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.objectives.base import Needs
from pipeline.objectives.precision import precise
from pipeline.signals import Signals

EMBEDDINGS = Needs(teacher=frozenset({"embedding"}), student=frozenset({"embedding"}))
"""What a method reads that compares embeddings and nothing else."""


def embeddings(student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
    """The student's [B, D_s] and the teacher's [B, D_t], in at least float32."""
    assert student.embedding is not None
    assert teacher.embedding is not None
    return precise(student.embedding), precise(teacher.embedding)


def gram(x: Tensor) -> Tensor:
    """All inner products of rows, [B, D] to [B, B], in at least float32 whatever autocast says."""
    x = precise(x)
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.T
