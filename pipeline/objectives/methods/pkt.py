"""PKT: who resembles whom in a batch, as probabilities, is alike in both networks.

Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018, arXiv 1803.10837,
as RepDistiller has it. f(i) are embeddings of a batch:

    p(j | i) = (1 + cos(f(i), f(j))) / Σ_k (1 + cos(f(i), f(k))),   L = (1/B²) Σ_ij p_t log( (p_t + ε) / (p_s + ε) )

with the code's ε = 10⁻⁷ there and in |f| + ε; the sum includes j = i. As a mean over B² pairs it is tiny: the weight
of RepDistiller is 30000, beside hard labels. Embeddings may differ in width: there is no projector. Exact from a cache.

No deviation: p_s - p_t is added to every summand, which is 0 in the sum over j, and keeps the value's float32 digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Objective
from pipeline.objectives.embedding import EMBEDDINGS, embeddings, gram
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.signals import Signals, SignalShapes

READS = ("embedding",)

EPSILON = 1e-7
"""The reference's."""


class Options(Section):
    """Take no options."""


def resemblance(x: Tensor) -> Tensor:
    """p(j | i) of embeddings [B, D]: [B, B], whose rows sum to one."""
    x = precise(x)
    cosines = gram(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + EPSILON))
    return (1 + cosines) / (1 + cosines).sum(1, keepdim=True)


def pkt_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """L of embeddings [B, D_s] and [B, D_t], in nats: a mean over B² pairs."""
    s, t = resemblance(student), resemblance(teacher)
    return (s - t - t * torch.log1p((s - t) / (t + EPSILON))).mean()


class PKT(Objective):
    """The mean divergence of the student's resemblances from the teacher's."""

    needs = EMBEDDINGS

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `resemblance`."""
        return {"resemblance": pkt_loss(*embeddings(student, teacher))}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    embedding_widths(student, teacher, key)
    return PKT()
