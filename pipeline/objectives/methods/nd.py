"""ND: embeddings grow towards the teacher's mean of their class, in direction and in length (KD++).

"Improving Knowledge Distillation via Regularizing Feature Norm and Direction", arXiv 2305.17007, after the authors'
code. f are embeddings, e_y is the teacher's mean embedding of class y, of length one:

    L = (1/B) Σ_b [ 1 - <f_s(b), e_y(b)> / max(|f_s(b)|, |f_t(b)|) ]

which is 1 - cos where the student's embedding is longer than the teacher's; where it is shorter, its length counts too.
At student = teacher it is not least. Recipe of the code: weight 2 for ResNet-56 to ResNet-20 (0.5 to 2 for other pairs)
beside hard labels and KD (T = 4), 1 each; beside DKD, DIST or ReviewKD it makes DKD++ and so on. Exact from a cache.

Deviations. The means are over the cached views, not over clean images. Between different widths the code has batch
normalisation, dropout of 0.5 and a linear map; here the dropout is left out, since it hides half of a direction that
is to be aligned. Vectors of length 0, where the code divides by 0, have L = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.embedding import embeddings
from pipeline.objectives.maps import CellNorm
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "labels")

SHORTEST = 1e-6
"""Lengths below count as this."""


class Options(Section):
    """Take no options."""


def norm_and_direction(student: Tensor, teacher: Tensor, means: Tensor) -> Tensor:
    """1 - <f_s, e> / max(|f_s|, |f_t|) of every sample: [B, D] each to [B]. means: of the samples' classes."""
    s, t = precise(student), precise(teacher)
    along = (s * unit(precise(means).to(s.dtype), dim=1)).sum(1)
    lengths = torch.maximum(torch.linalg.vector_norm(s, dim=1), torch.linalg.vector_norm(t, dim=1))
    return 1 - along / lengths.clamp(min=SHORTEST)


class ND(SampleObjective):
    """The mean over the batch, of embeddings in the teacher's width."""

    needs = Needs(teacher=frozenset({"embedding"}), student=frozenset({"embedding"}), labels=True)
    _means: Tensor

    def __init__(self, widths: tuple[int, int], context: Context) -> None:
        super().__init__()
        self.context = context
        self.register_buffer("_means", torch.empty(0), persistent=False)
        student, teacher = widths
        adapter = nn.Sequential(CellNorm(student), nn.Linear(student, teacher))
        self.adapter = adapter if student != teacher else nn.Identity()

    def prepare(self, batch: Batch, progress: float) -> None:
        """Ask for the means of classes, once."""
        if not len(self._means):
            assert self.context.class_means is not None
            self._means = self.context.class_means().to(batch.labels.device)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `direction`."""
        s, t = embeddings(student, teacher)
        with torch.autocast(s.device.type, enabled=False):
            s = self.adapter(s)
        return {"direction": norm_and_direction(s, t, self._means[batch.labels])}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    return ND(embedding_widths(student, teacher, key), context)
