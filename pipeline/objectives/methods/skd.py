"""SKD: in which directions logits of samples lie to each other is alike in both networks, by a whitened distance.

"Streamlined Knowledge Distillation", CVPR 2026, after the authors' code: its direction term. With logits ẑ of a batch,
every row of length one, [B, K], and D_b the rows of D:

    D = (ẑ_s ẑ_sᵀ - ẑ_t ẑ_tᵀ) / K,   Σ = cov(D) + λ I,   L = (1/B) Σ_b √(D_b Σ⁻¹ D_bᵀ)     [B, B]

a Mahalanobis distance: cov is that of the rows of D, over B - 1, and D_b itself is not centred. The gradient goes
through Σ, too. With K classes L is that of Gram matrices which are not divided, with λ K² in place of λ: for many
classes the ridge is all of Σ, and L the mean length of D_b over √λ. L grows with √B at most. No label is read.

The method is this term beside KD at T = 4: `[{name: hard-label, weight: 0.1}, {name: kd, weight: 0.9}, {name: skd,
weight: 0.9}]` are the code's defaults, 0.5 and 0.5 its weights for ResNet-32x4 to ResNet-8x4, λ = 0.1. The code also
multiplies both terms, which are numbers by then, by a mask of the half of the samples and classes of which the teacher
is less sure, and averages: a factor of about one half, which is left out here. torchdistill's form does not divide by
K: `divide: false`.

Deviations. Computed as |L⁻¹ D_b| with Σ = L Lᵀ, without an inverse: where both networks agree its gradient is 0, the
code's is not a number. Logits of zeros have no direction. Of one sample it is 0.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("logits",)


class Options(Section):
    """ridge: λ > 0, added to every variance. divide: whether Gram matrices are divided by the number of classes."""

    ridge: float = Field(0.1, gt=0)
    divide: bool = True


def direction_distances(student: Tensor, teacher: Tensor, ridge: float) -> Tensor:
    """The Mahalanobis length of every row of D, [B]. Vectors [B, K] each, of any length; D is not divided by K."""
    s, t = (unit(precise(logits), dim=1) for logits in (student, teacher))
    with torch.autocast(s.device.type, enabled=False):
        return _whitened_lengths(s @ s.T - t @ t.T, ridge)


def _whitened_lengths(apart: Tensor, ridge: float) -> Tensor:
    """√(D_b Σ⁻¹ D_bᵀ) of the rows of D [B, B]."""
    centred = apart - apart.mean(0)
    covariance = centred.T @ centred / max(len(apart) - 1, 1)
    ridged = covariance + ridge * torch.eye(len(apart), dtype=apart.dtype, device=apart.device)
    # `cholesky` looks whether it went well, for which it waits for the device. It does go well: no eigenvalue is below
    # the ridge.
    lower, _ = torch.linalg.cholesky_ex(ridged)
    lengths: Tensor = torch.linalg.vector_norm(torch.linalg.solve_triangular(lower, apart.T, upper=False), dim=0)
    return lengths


class SKD(Objective):
    """The mean distance of directions. scale: what Gram matrices are multiplied by."""

    needs = Needs(teacher=frozenset({"logits"}))

    def __init__(self, options: Options, scale: float) -> None:
        super().__init__()
        self.ridge, self.scale = options.ridge, scale

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `directions`."""
        # √(c D (c² Σ + λ)⁻¹ c Dᵀ) = √(D (Σ + λ / c²)⁻¹ Dᵀ): the same, without a small c.
        distances = direction_distances(student.logits, teacher.logits, self.ridge / self.scale**2)
        return {"directions": distances.mean()}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes."""
    require_same_classes(student, teacher, key)
    return SKD(options, 1 / student.logits if options.divide else 1.0)
