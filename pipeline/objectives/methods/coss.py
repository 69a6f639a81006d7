"""CoSS: embeddings point where the teacher's do, and so does each of their dimensions, across samples and neighbours.

Singh and Wang, "Simple Unsupervised Knowledge Distillation With Space Similarity", ECCV 2024, arXiv 2409.13939, and the
authors' code. S = P f_s of a batch, [B, D], P a learned linear map to the teacher's width D; T the teacher's [B, D]:

    L = (1/B) Σ_b (1 - cos(S_b, T_b)) + λ (1/D) Σ_d (1 - cos(S_·d, T_·d))

The first term is blind to the lengths of embeddings, the second to the scale of each dimension only. A batch is groups
of a sample and k neighbours, drawn in every epoch among the n nearest in the teacher (needs `neighbours`): without
neighbours a batch of random samples says little about what is near (`neighbours: 0` has it so).

Recipe of the paper: λ = 1, k = 15, n = 31, weight 70, no labels. A step of the code is 64 groups on four GPUs, each of
which computes L of its 16, of 256 images (`train.batch_size: 256`, or 1024 for one L of all 64). The code divides the
lengths of S and T by 0.1 and by 0.07, which is a weight of 143, and has no constants 1. It reads no label and works on
unlabeled images. Exact from a cache; nearest are compared by the mean embedding over the views that are used, where
the code takes that of the image without augmentation.

Deviations. An epoch has as many samples as without neighbours, and N / (1 + k) groups; the code's has N groups, and
takes 1 + k times as long: multiply `train.epochs` for the same. A vector of zeros has a right angle with all others. In
batches of fewer groups neighbours do harm (docs/training.md has figures).
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Neighbours, Objective
from pipeline.objectives.embedding import embeddings
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "neighbours of each sample")


class Options(Section):
    """Configures the objective.

    space_weight: λ. neighbours: k, of each sample that a batch begins with; 0 leaves batches as they are. nearest: n,
    among how many nearest ones they are drawn; all others where there are fewer.
    """

    space_weight: float = Field(1.0, ge=0)
    neighbours: int = Field(15, ge=0)
    nearest: int = Field(31, gt=0)

    @model_validator(mode="after")
    def _some_are_left_to_draw(self) -> Options:
        if self.nearest < self.neighbours:
            raise ValueError(f"`nearest` must be at least `neighbours`, {self.neighbours}")
        return self


def coss_losses(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean of 1 - cos over rows, and over columns, of vectors [B, D] of both networks."""
    s, t = precise(student), precise(teacher)
    rows, columns = ((unit(s, dim) * unit(t, dim)).sum(dim) for dim in (1, 0))
    return 1 - rows.mean(), 1 - columns.mean()


class CoSS(Objective):
    """A linear map, and both similarities."""

    def __init__(self, widths: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.projector, self.space_weight = nn.Linear(*widths), options.space_weight
        near = Neighbours(options.neighbours, options.nearest) if options.neighbours else None
        self.needs = Needs(frozenset({"embedding"}), frozenset({"embedding"}), neighbours=near)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `feature` and `space`, the latter weighted by λ."""
        s, t = embeddings(student, teacher)
        with torch.autocast(s.device.type, enabled=False):
            feature, space = coss_losses(self.projector(s), t)
        return {"feature": feature, "space": self.space_weight * space}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings."""
    return CoSS(embedding_widths(student, teacher, key), options)
