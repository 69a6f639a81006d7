"""iCD: which parts of an image are alike, told by Gram matrices of local logits.

"Implicit Clustering Distillation" (arXiv 2509.12553). π(p) are the logits of cell p of an r x r grid, normalised to
length one over the classes; their Gram matrix says how alike the r² cells of one image are, whatever they show:

    S_r(b) = π̂(b) π̂(b)ᵀ  [r², r²],   L = γ Σ_r ω_r (1/B) Σ_b Σ_i KL( softmax(S_r,t(b)_i / τ) ‖ softmax(S_r,s(b)_i / τ) )

over the rows i, with ω_r = (1 + log₂ r) / Σ: 1/6, 2/6 and 3/6 for scales {1, 2, 4}. No label is read. It is a term
beside others: the paper's are hard labels and SD-KD, SD-DKD or SD-NKD (`sdd`).

After the authors' code, which gives what the abstract leaves open. It sums over the rows of a Gram matrix and takes
the mean over the batch alone, so the 4 x 4 grid weighs four times as much as the 2 x 2 grid before ω. There is no
factor τ², and no warm-up. The 1 x 1 grid contributes nothing, as the softmax of one number is 1 whatever it is:
scales {1, 2, 4} weigh in effect 0, 1/3 and 1/2, and {1} alone is refused. The code has weights for {1, 2}, {1, 4} and
{1, 2, 4}, though its pooling refuses {1, 4}; any nested set has a weight here by the same rule. Cells are exact means
(`signals/filters/mean.py`); where 4 does not divide the map, 7 x 7 for one, the code's adaptive pooling has cells that
overlap. γ is 2 in the code's defaults and 8 in the names of its CIFAR
runs: which gave the published tables is not known. Cosines over τ = 2 are at most 1 apart, hence small gradients: γ
is to be chosen with the scales. Exact from a cache of the last map, low-passed by `mean`, and the head.
"""

from __future__ import annotations

import math

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.local import last_maps, local_logits, refuse_repeated_grids
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("features", "head")


class Options(Section):
    """gamma: γ. temperature: τ > 0. scales: different grids, each dividing the largest, one finer than 1 x 1."""

    gamma: float = Field(2.0, ge=0)
    temperature: float = Field(2.0, gt=0)
    scales: tuple[int, ...] = (1, 2, 4)

    @field_validator("scales")
    @classmethod
    def _say_something(cls, scales: tuple[int, ...]) -> tuple[int, ...]:
        if scales == (1,):
            raise ValueError("different grids of 1 or more, and not 1 alone: one cell is like itself in every network")
        return refuse_repeated_grids(scales)


def scale_weights(scales: tuple[int, ...]) -> list[float]:
    """ω of every scale; they sum to one."""
    depths = [1 + math.log2(scale) for scale in scales]
    return [depth / sum(depths) for depth in depths]


def cluster_losses(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """The divergence of the Gram matrices of one grid, of every sample [B], in nats: summed over rows.

    Local logits [B, n, K] of the same n cells; the numbers of classes may differ.
    """
    gram_s, gram_t = (_gram(precise(cells)) / temperature for cells in (student, teacher))
    return kl_divergence(gram_s, gram_t).sum(1)


def _gram(cells: Tensor) -> Tensor:
    vectors = unit(cells, 2)
    with torch.autocast(cells.device.type, enabled=False):
        return vectors @ vectors.transpose(1, 2)


class ICD(SampleObjective):
    """The weighted sum of the scales' divergences."""

    def __init__(self, pair: BlockPair, options: Options) -> None:
        super().__init__()
        self.pair, self.options = pair, options
        self.scales = tuple(scale for scale in sorted(options.scales) if scale > 1)
        self.weights = scale_weights(tuple(sorted(options.scales)))[-len(self.scales) :]
        self.needs = Needs(
            teacher=frozenset({f"features/{pair.teacher}", "head"}),
            student=frozenset({f"features/{pair.student}"}),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `cluster`, times γ."""
        of_student = local_logits(student, self.pair.student, self.scales)
        of_teacher = local_logits(teacher, self.pair.teacher, self.scales)
        total = torch.stack(
            [
                weight * cluster_losses(s, t, self.options.temperature)
                for weight, s, t in zip(self.weights, of_student, of_teacher, strict=True)
            ]
        )
        return {"cluster": self.options.gamma * total.sum(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without local logits, with every reason."""
    return ICD(last_maps(student, teacher, options.scales, key), options)
