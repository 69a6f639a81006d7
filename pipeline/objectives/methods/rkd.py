"""RKD: distances between samples, and angles among three of them, are alike in both networks.

Park, Kim, Lu and Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068, as RepDistiller has it. f(b)
are embeddings, μ the mean distance of different samples of the batch, h the Huber loss (½ x² up to 1, |x| - ½ beyond):

    D = (1/B²) Σ_ij h( |f_s(i) - f_s(j)| / μ_s - |f_t(i) - f_t(j)| / μ_t )
    A = (1/B³) Σ_ijk h( cos∠ f_s(j) f_s(i) f_s(k) - cos∠ f_t(j) f_t(i) f_t(k) ),   L = 25 D + 50 A

Sums run over all indices, equal ones too, whose terms are 0. Recipe of RepDistiller: weight 1 beside hard labels. The
embeddings may differ in width: there is no projector. Exact from a cache.

No deviation but in rounding: distances and cosines are computed from one Gram matrix of the centred embeddings, in B³
numbers (8 MB at B = 128) and no B² D; samples closer than its rounding have distance 0 and no direction (the code: a
distance of 10⁻⁶). A batch of one sample has no relations: both terms are 0.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Objective
from pipeline.objectives.embedding import EMBEDDINGS, embeddings, gram
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.signals import Signals, SignalShapes

READS = ("embedding",)

CHUNK = 2**22
"""Angles that are in memory at once; beyond that they are computed again for the gradient."""


class Options(Section):
    """distance_weight, angle_weight: of the two terms; 0 leaves one out."""

    distance_weight: float = Field(25.0, ge=0)
    angle_weight: float = Field(50.0, ge=0)


class Geometry:
    """Where the rows of x [B, D] lie to each other, whatever their common origin and orientation."""

    def __init__(self, x: Tensor) -> None:
        x = precise(x)
        self.gram = gram(x - x.mean(0))
        own = self.gram.diagonal()
        scale = own[:, None] + own
        squares = scale - 2 * self.gram
        self.apart = squares.detach() > 16 * torch.finfo(x.dtype).eps * scale.detach()
        self.apart.fill_diagonal_(False)
        self.lengths = torch.where(self.apart, squares, 1).sqrt()

    def distances(self) -> Tensor:
        """[B, B], over their mean; 0 where two samples are one."""
        distances = self.lengths * self.apart
        mean = distances.sum() / self.apart.sum().clamp(min=1)
        return distances / (mean + (mean == 0))

    def cosines(self, at: slice) -> Tensor:
        """Of the angles at some samples, to all pairs: [A, B, B]; 0 where one of the sides is none."""
        inverse = (self.apart / self.lengths)[at]
        origin = self.gram[at] - self.gram.diagonal()[at, None] / 2
        inner = self.gram - origin[:, :, None] - origin[:, None, :]
        return inner * inverse[:, :, None] * inverse[:, None, :]


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """D of embeddings [B, D_s] and [B, D_t]: a mean over all B² pairs."""
    return F.smooth_l1_loss(Geometry(student).distances(), Geometry(teacher).distances())


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """A of embeddings [B, D_s] and [B, D_t]: a mean over all B³ triples."""
    of_student, of_teacher, batch = Geometry(student), Geometry(teacher), len(student)

    def part(at: slice) -> Tensor:
        return F.smooth_l1_loss(of_student.cosines(at), of_teacher.cosines(at), reduction="sum")

    size = max(1, CHUNK // batch**2)
    chunks = [slice(start, start + size) for start in range(0, batch, size)]
    if len(chunks) == 1:
        return part(chunks[0]) / batch**3
    return torch.stack([checkpoint(part, chunk, use_reentrant=False) for chunk in chunks]).sum() / batch**3


class RKD(Objective):
    """The weighted sum of both losses."""

    needs = EMBEDDINGS

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.weights = {"distance": options.distance_weight, "angle": options.angle_weight}

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `distance` and `angle`, weighted; without one whose weight is 0."""
        s, t = embeddings(student, teacher)
        losses = {"distance": distance_loss, "angle": angle_loss}
        return {name: weight * losses[name](s, t) for name, weight in self.weights.items() if weight}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    embedding_widths(student, teacher, key)
    return RKD(options)
