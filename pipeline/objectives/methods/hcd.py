"""HCD: what the student sees and what the teacher knows, joined into logits that correct the teacher's.

After Xu, Zheng, Wang, Xu and Cheng, "Heterogeneous Complementary Distillation", AAAI 2026, arXiv 2511.10942. **Ours
after the abstract**: it establishes that student's intermediate features pass a convolutional projector and adaptive
pooling, join the teacher's penultimate feature, and are mapped by a fully connected layer (complementary feature
mapper) to shared logits; that these are divided into n sub-logits, each fused with the teacher's logits to rectify
classification; and an orthogonality loss among sub-logits. n, the fusion, the losses and their weights are our choices;
published numbers of HCD must not be compared with this file's.

    h = mean over cells of ReLU(norm(conv(low_r(F_s)))),   (u_1, ..., u_n) = A [h ; norm(f_t)] + a,   v_i = z_t + u_i
    rectified        mean over i of the cross-entropy of v_i with the label
    distilled        mean over i of T² KL( softmax(v_i / T) ‖ softmax(z_s / T) ), v_i a constant
    orthogonality    mean over i < j of cos²(u_i, u_j)

The first trains projector and mapper to correct the teacher, and the student's block to see what they need; the second
gives the corrected logits to the student. norm is batch normalisation, of f_t without anything learned. Its "SDD" is
not that of `sdd`. Beside hard labels. Exact from a cache: embedding and logits are all that is read of the teacher.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.maps import CellNorm, Connector
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths, require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.signals.unit import unit

READS = ("embedding", "logits", "labels")


class Options(Section):
    """parts: n. block: the student's, default its deepest but one. grid: r, cells a side. temperature: T > 0.

    orthogonality: the weight of that term.
    """

    parts: int = Field(4, gt=0)
    block: str | None = None
    grid: int = Field(4, gt=0)
    temperature: float = Field(4.0, gt=0)
    orthogonality: float = Field(1.0, ge=0)


def rectified(parts: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy of sub-logits [B, n, K] added to the teacher's logits [B, K], in nats: [B]."""
    fused = precise(parts) + precise(teacher)[:, None]
    every = F.cross_entropy(fused.flatten(0, 1), labels.repeat_interleave(parts.shape[1]), reduction="none")
    return every.reshape(parts.shape[:2]).mean(1)


def distilled(student: Tensor, parts: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence of the student's logits [B, K] from fused parts', in nats, times T²: [B]."""
    fused = (precise(parts) + precise(teacher)[:, None]).detach()
    return kl_divergence(precise(student)[:, None], fused, temperature).mean(1)


def orthogonality(parts: Tensor) -> Tensor:
    """Return the mean squared cosine of different sub-logits [B, n, K], n > 1: [B], 0 if orthogonal, 1 if parallel."""
    directions = unit(precise(parts), 2)
    with torch.autocast(parts.device.type, enabled=False):
        squares = (directions @ directions.transpose(1, 2)).square()
    n = parts.shape[1]
    return (squares.sum((1, 2)) - squares.diagonal(dim1=1, dim2=2).sum(1)) / (n * (n - 1))


class HCD(SampleObjective):
    """The losses of sub-logits."""

    def __init__(self, block: str, channels: int, width: int, classes: int, options: Options) -> None:
        super().__init__()
        self.block, self.options, self.classes = block, options, classes
        self.projector = nn.Sequential(Connector(channels, width), nn.ReLU())
        self.norm = CellNorm(width, affine=False)
        self.mapper = nn.Linear(2 * width, options.parts * classes)
        self.needs = Needs(
            teacher=frozenset({"logits", "embedding"}), student=frozenset({"logits", f"features/{block}"}), labels=True
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Terms `rectified`, `distilled` and, of several parts and unless its weight is 0, `orthogonality`."""
        assert teacher.embedding is not None
        seen = self.projector(lowpass(student.features[self.block], self.options.grid)).mean((2, 3))
        known = self.norm(precise(teacher.embedding))
        parts = precise(self.mapper(torch.cat((seen, known), dim=1))).reshape(len(seen), -1, self.classes)
        terms = {
            "rectified": rectified(parts, teacher.logits, batch.labels),
            "distilled": distilled(student.logits, parts, teacher.logits, self.options.temperature),
        }
        if self.options.parts > 1 and self.options.orthogonality:
            terms["orthogonality"] = self.options.orthogonality * orthogonality(parts)
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses a block that the student does not have, a teacher without embedding, and different classes."""
    require_same_classes(student, teacher, key)
    _, width = embedding_widths(student, teacher, key)
    blocks = [name for name in student.features if name.startswith("block")]
    if not blocks:
        raise ConfigError([Problem(key, "needs a map of the student, and it has none")])
    if options.block is not None and options.block not in blocks:
        raise ConfigError([unknown_name(f"{key}.block", options.block, blocks)])
    block = options.block or blocks[max(0, len(blocks) - 2)]
    return HCD(block, student.features[block][0], width, teacher.classes, options)
