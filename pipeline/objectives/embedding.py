"""Provides what methods on embeddings share: reading both, and comparing all samples of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.objectives.base import Needs
from pipeline.objectives.precision import precise
from pipeline.signals import Signals

EMBEDDINGS = Needs(teacher=frozenset({"embedding"}), student=frozenset({"embedding"}))
"""What a method reads that compares embeddings and nothing else."""


def embeddings(student: Signals, teacher: Signals) -> tuple[Tensor, Tensor]:
    """Return the embeddings of student [B, D_s] and teacher [B, D_t], in at least float32."""
    assert student.embedding is not None
    assert teacher.embedding is not None
    return precise(student.embedding), precise(teacher.embedding)


def gram(x: Tensor) -> Tensor:
    """Compute all inner products of rows of x, [B, D] to [B, B], in at least float32 even under autocast."""
    x = precise(x)
    with torch.autocast(x.device.type, enabled=False):
        return x @ x.T
