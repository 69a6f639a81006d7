"""MSDCRD: contrast of local samples, means over windows of several sizes, by samples and by channels.

After Wang, Chen and Wang, "Contrastive Representation Distillation via Multi-Scale Feature Decoupling", arXiv
2502.05835. **Ours after the abstract**: it establishes multi-scale sliding-window pooling of the feature map into local
samples, a selection or categorisation of them, and two contrastive losses, of samples and of features, within one
batch and without a memory bank. Window sizes, selection, temperature and weights are our choices; published numbers
of MSDCRD must not be compared with this file's.

On the last maps, with a window of w x w cells at every place of the cached grid, of which an image keeps the `keep`
where the teacher stands out most (the mean of its normalised map is longest), ranked: s_w,r(b) and t_w,r(b) in R^D.

    sample     mean over w, r of InfoNCE_b: s_w,r(b) against t_w,r of all images of the batch, by cosines over τ
    feature    mean over w of InfoNCE_d: channel d of s_w, over all images and ranks, against all channels of t_w

Each is -(mean) log( exp(own) / Σ exp(all) ). Windows of one size and rank are compared with each other: the categories.
Both maps are normalised by channel over samples and cells first, or all cosines would be near 1 after an activation.
Free of parameters, as the abstract has it, where widths are equal; otherwise a learned 1 x 1 convolution brings the
student's to the teacher's. Two views of one sample are not each other's negatives. Exact from a cache low-passed by
`mean`: a window's mean is the mean of the map there; student's maps are reduced to the same cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.maps import CellNorm, Connector, common_grid, needs_of, on_one_grid, pair_maps
from pipeline.objectives.methods.lfcc import contrast
from pipeline.objectives.precision import precise
from pipeline.signals import Signals, SignalShapes

READS = ("features",)


class Options(Section):
    """windows: sizes w in cells, each at most the cached grid. keep: local samples of an image at each size, at most.

    temperature: τ > 0. feature_weight: of the term `feature`, 0 to leave it out.
    """

    windows: tuple[int, ...] = Field((1, 2, 4), min_length=1)
    keep: int = Field(4, gt=0)
    temperature: float = Field(0.1, gt=0)
    feature_weight: float = Field(1.0, ge=0)


def local_samples(student: Tensor, teacher: Tensor, window: int, keep: int) -> tuple[Tensor, Tensor]:
    """Means over the windows where the teacher's are longest: maps [B, D, h, w] to [B, k, D] both, longest first."""
    s, t = (F.avg_pool2d(precise(maps), window, stride=1).flatten(2) for maps in (student, teacher))
    best = t.square().sum(1).topk(min(keep, t.shape[2]), dim=1).indices[:, None].expand(-1, t.shape[1], -1)
    return s.gather(2, best).transpose(1, 2), t.gather(2, best).transpose(1, 2)


def decoupled_contrast(student: list[Tensor], teacher: list[Tensor], same: Tensor, temperature: float) -> Tensor:
    """InfoNCE of local samples [B, k, D], a list by size, in nats: a mean over images, ranks and sizes."""
    s, t = ([each[:, rank] for each in local for rank in range(each.shape[1])] for local in (student, teacher))
    return contrast(s, t, same, temperature, symmetric=False).mean()


def feature_contrast(student: list[Tensor], teacher: list[Tensor], temperature: float) -> Tensor:
    """InfoNCE of the D channels of local samples [B, k, D], a list by size, in nats: a mean over channels and sizes."""
    s, t = ([each.flatten(0, 1).T for each in local] for local in (student, teacher))
    none = torch.zeros(len(s[0]), len(s[0]), dtype=torch.bool, device=s[0].device)
    return contrast(s, t, none, temperature, symmetric=False).mean()


class MSDCRD(Objective):
    """Both contrasts of the last maps' local samples."""

    def __init__(self, pair: BlockPair, options: Options, low_pass: str) -> None:
        super().__init__()
        self.pair, self.options, self.low_pass = pair, options, low_pass
        own, theirs = pair.student_shape[0], pair.teacher_shape[0]
        self.of_student = CellNorm(own, affine=False) if own == theirs else Connector(own, theirs)
        self.of_teacher = CellNorm(theirs, affine=False)
        self.needs = needs_of([pair])

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Terms `sample` and, unless its weight is 0, `feature` times its weight."""
        options = self.options
        s, t = on_one_grid(student.features[self.pair.student], teacher.features[self.pair.teacher], self.low_pass)
        s, t = self.of_student(s), self.of_teacher(t)
        local = [local_samples(s, t, window, options.keep) for window in options.windows]
        of_student, of_teacher = ([each[who] for each in local] for who in (0, 1))
        same = batch.sample[:, None] == batch.sample
        same.fill_diagonal_(False)
        terms = {"sample": decoupled_contrast(of_student, of_teacher, same, options.temperature)}
        if options.feature_weight:
            feature = feature_contrast(of_student, of_teacher, options.temperature)
            terms["feature"] = options.feature_weight * feature
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Takes the deepest blocks; refuses maps of other proportions, and windows that do not fit them."""
    pair = pair_maps(student, teacher, None, key, deepest=True)[-1]
    grid = common_grid(pair.student_shape[1:], pair.teacher_shape[1:]) or (1, 1)
    if max(options.windows) > min(grid) or min(options.windows) < 1:
        fix = f"use sizes from 1 to {min(grid)}"
        what = f"windows must fit into {grid[0]} x {grid[1]} cells"
        raise ConfigError([Problem(f"{key}.windows", what, got=str(options.windows), fix=fix)])
    return MSDCRD(pair, options, teacher.filter)
