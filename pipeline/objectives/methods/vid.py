"""VID: the student's map says as much as possible about the teacher's.

Ahn, Hu, Damianou, Lawrence and Dai, "Variational Information Distillation for Knowledge Transfer", CVPR 2019, arXiv
1904.05835. A Gaussian with learned mean μ and variance v predicts the teacher's map from the
student's; its log-likelihood bounds their mutual information from below:

    L = mean over b, c, i of ½ ( (F_t(b, c, i) - μ(F_s)(b, c, i))² / v_c + log v_c ),   v_c = softplus(ρ_c) + 10⁻⁵

i are cells. μ is three 1 x 1 convolutions of the teacher's width without bias, with ReLUs between; v is one number for
every channel, 5 at first. Summed over pairs of blocks, with weight 1 beside hard labels (RepDistiller). The constant
½ log 2π is left out, so L may be negative. Unlike in mdistiller, ρ is learned.

Approximate offline: both maps are low-passed before μ, which is not linear. What is bounded is the information
between low frequencies, which is never more than that between the maps. Exact if the cached grid is as large as
the map (`signals.features.grid`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.maps import needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("features",)

FIRST, LEAST = 5.0, 1e-5
"""The variance at first, and what it never falls below."""


class Options(Section):
    """blocks: the teacher's blocks, default all that are cached."""

    blocks: tuple[str, ...] | None = None


def gaussian_losses(mean: Tensor, teacher: Tensor, variance: Tensor) -> Tensor:
    """The negative log-likelihood of every sample [B] in nats, without ½ log 2π, a mean over its elements.

    mean, teacher: [B, ..., C]; variance: [C], positive.
    """
    error = precise(teacher) - precise(mean)
    return (error.square() / variance + variance.log()).flatten(1).mean(1) / 2


class Predictor(nn.Module):
    """μ and v of one pair of blocks."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Linear(channels, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
            nn.ReLU(),
            nn.Linear(width, width, bias=False),
        )
        self.raw_variance = nn.Parameter(torch.full((width,), math.log(math.expm1(FIRST - LEAST))))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The losses [B] of maps on one grid."""
        s, t = (maps.permute(0, 2, 3, 1).flatten(0, 2) for maps in (student, teacher))
        shape = len(student), -1, teacher.shape[1]
        variance = F.softplus(self.raw_variance) + LEAST
        return gaussian_losses(self.mean(s).reshape(shape), t.reshape(shape), variance)


class VID(SampleObjective):
    """The loss of every pair of blocks, summed."""

    def __init__(self, pairs: list[BlockPair], low_pass: str) -> None:
        super().__init__()
        self.pairs, self.low_pass = pairs, low_pass
        self.predictors = nn.ModuleList(Predictor(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `information`: the bound's negative, up to a constant."""
        losses = [
            predictor(*on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass))
            for pair, predictor in zip(self.pairs, self.predictors, strict=True)
        ]
        return {"information": torch.stack(losses).sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses those that are not cached."""
    return VID(pair_maps(student, teacher, options.blocks, key), teacher.filter)
