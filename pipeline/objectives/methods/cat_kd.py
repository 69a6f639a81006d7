"""CAT-KD: where in the image a network sees each class, by its class activation maps.

Guo, Yan, Li and Lin, "Class Attention Transfer Based Knowledge Distillation", CVPR 2023, arXiv 2304.12777. The class
activation map of class k is the head's weight applied at every place of the last map; with its means over the cells
of an r x r grid, A [K, r, r], perhaps each class's divided by its length over the cells:

    A_k = Σ_c W_kc · mean over cells of F_c,   L = mean over samples, classes and cells of (A_s - A_t)²

Without bias, as in the authors' code, which turns the classifier into a 1 x 1 convolution before the pooling: for a
head that is linear on the mean of the last map this is the same network. Of a student with a norm before its head (a
ViT), it is what its own end makes of the cell's mean, less the bias. No label is read, and no logits term is
included. Authors' configurations for CIFAR-100, beside hard labels with weight 1: 2 x 2 cells as they are for
networks of one family (weight 0.7 for ResNet-56 to ResNet-20, 1.8 for ResNet-110 to ResNet-32, 15 for ResNet-32x4 to
ResNet-8x4), 4 x 4 normalised for others (600 for ResNet-32x4 to ShuffleNets). Their studies with binary maps or a part
of the classes are not here. Exact from a cache of the last map, low-passed by `mean`, and the head.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Needs, Objective
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.local import last_maps, local_logits, reads_head
from pipeline.objectives.precision import precise
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.signals.unit import unit

READS = ("features", "head")


class Options(Section):
    """resolution: r, cells a side. normalize: each class's map has length one over its cells."""

    resolution: int = Field(2, gt=0)
    normalize: bool = False


def activation_maps(maps: Tensor, weight: Tensor, resolution: int) -> Tensor:
    """Class activation maps [B, K, r, r] of last maps [B, D, H, W] by a head's weight [K, D]."""
    cells = lowpass(maps, resolution)
    with torch.autocast(maps.device.type, enabled=False):
        return torch.einsum("kd,bdhw->bkhw", weight.to(cells.dtype), cells)


def attention_loss(student: Tensor, teacher: Tensor, normalize: bool) -> Tensor:
    """The mean squared difference, for every sample, of class activation maps [B, K, r, r] of the same classes."""
    s, t = precise(student), precise(teacher)
    if normalize:
        s, t = (unit(each.flatten(2), 2) for each in (s, t))
    return squared_errors(s, t)


class CATKD(SampleObjective):
    """The squared difference of class activation maps."""

    def __init__(self, pair: BlockPair, options: Options) -> None:
        super().__init__()
        self.pair, self.options = pair, options
        self.needs = Needs(
            teacher=frozenset({f"features/{pair.teacher}", "head"}),
            student=frozenset({f"features/{pair.student}"}),
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `attention`."""
        s, t = self._attention(student, self.pair.student), self._attention(teacher, self.pair.teacher)
        return {"attention": attention_loss(s, t, self.options.normalize)}

    def _attention(self, signals: Signals, tap: str) -> Tensor:
        r = self.options.resolution
        assert signals.head is not None
        if reads_head(signals, tap):
            return activation_maps(signals.features[tap], signals.head.weight, r)
        (cells,) = local_logits(signals, tap, (r,))
        less = precise(cells) - precise(signals.head.bias)
        return less.transpose(1, 2).reshape(len(less), -1, r, r)


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without local logits, with every reason."""
    return CATKD(last_maps(student, teacher, (options.resolution,), key, "resolution"), options)
