"""VkD: the student's embedding, turned by an orthogonal map, is the teacher's normalised embedding.

Miles, Elezi and Deng, "VkD: Improving Knowledge Distillation using Orthogonal Projections", CVPR 2024, arXiv
2403.06213, after the authors' code. P [D_t, D_s] is learned and has orthonormal columns, or rows where the student is
wider; t̂ = (t - mean) / std over the D_t entries of a sample (a layer normalisation without weights):

    L = mean over b, d of h( (P f_s(b))_d - t̂_d(b) ),   h(x) = ½ x² up to 1, |x| - ½ beyond

An orthogonal P changes no angle: what L asks for is learned by the student, not by P. Recipe of the code, for DeiT
students on ImageNet: weight 1 beside hard labels, and 1.0 KD at T = 1 on a distillation token. Exact from a cache.

Deviations. f_s is the student's embedding; the code's is the mean of its patch tokens, which this is where a network
pools by a mean. P is the Q of a QR decomposition of a free matrix, not torch's `orthogonal`: the same maps, but 0.02 s
on a processor core, not 2.5 s, from 192 to 768.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Objective
from pipeline.objectives.embedding import EMBEDDINGS, embeddings
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("embedding",)


class Options(Section):
    """Take no options."""


def vkd_loss(projected: Tensor, teacher: Tensor) -> Tensor:
    """L of every sample, [B], of [B, D_t]: the student's embedding projected, and the teacher's, as it is."""
    target = F.layer_norm(precise(teacher), teacher.shape[1:])
    return F.smooth_l1_loss(precise(projected), target, reduction="none").mean(1)


class Orthogonal(nn.Module):
    """A linear map with orthonormal columns, or rows where it narrows: [B, D] to [B, width]."""

    def __init__(self, width: int, to: int) -> None:
        super().__init__()
        self.narrows = to < width
        self.free = nn.Parameter(torch.randn(max(width, to), min(width, to)))

    @property
    def weight(self) -> Tensor:
        """[to, width]; a function of the free matrix that has no jumps."""
        q, r = torch.linalg.qr(self.free)
        columns: Tensor = q * r.diagonal().detach().sign()
        return columns.T if self.narrows else columns

    def forward(self, x: Tensor) -> Tensor:
        """The image of every row."""
        return F.linear(x, self.weight)


class VKD(SampleObjective):
    """The smooth distance of projected embeddings from normalised ones."""

    needs = EMBEDDINGS

    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.projector = Orthogonal(student, teacher)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `feature`."""
        s, t = embeddings(student, teacher)
        with torch.autocast(s.device.type, enabled=False):
            return {"feature": vkd_loss(self.projector(s), t)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    return VKD(*embedding_widths(student, teacher, key))
