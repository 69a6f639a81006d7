"""SRRL: the teacher's classifier judges the student's last map, and finds in it what it finds in the teacher's.

"Knowledge Distillation via Softmax Regression Representation Learning", ICLR 2021; also SRD, of "Knowledge Distillation
Meets Open-Set Semi-Supervised Learning", arXiv 2205.06701, whose authors' code this is after. r is a learned 1 x 1
convolution of the student's last map to the teacher's width D, batch-normalised, then rectified; g(b) is its mean over
cells; f_t, z_t are the teacher's embedding and logits, W, a its classifier:

    L = λ · mean over b, d of (g_d(b) - f_t,d(b))² + mean over b, k of ((W g(b) + a)_k - z_t,k(b))²

Recipe of the code: weight 1 beside hard labels, no KD, λ = 1 (10 for ShuffleNetV1). It reads no label and works on
unlabeled images. Of the teacher it needs pooled values alone, so it is exact from a cache.

No deviation. `rectify: false` leaves the rectifier out: with it g has no negative entry, as the embeddings of teachers
that end in a rectifier, and those that end in a norm (ViT, ConvNeXt) are out of its reach.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import Connector
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import deepest_map, teacher_embedding
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import LinearHead, Signals, SignalShapes

READS = ("embedding", "head", "logits")


class Options(Section):
    """feature_weight: λ. rectify: whether the projection ends in a rectifier, as in the reference."""

    feature_weight: float = Field(1.0, ge=0)
    rectify: bool = True


def regression_losses(pooled: Tensor, embedding: Tensor, logits: Tensor, head: LinearHead) -> tuple[Tensor, Tensor]:
    """Mean squared errors, of every sample, of what was projected and pooled [B, D], and of what the head makes of it.

    embedding, logits, head: the teacher's, [B, D], [B, K].
    """
    s, fixed = precise(pooled), LinearHead(precise(head.weight), precise(head.bias))
    with torch.autocast(s.device.type, enabled=False):
        judged = fixed(s)
    return squared_errors(s, embedding), squared_errors(judged, logits)


class SRRL(SampleObjective):
    """A projection of the student's last map, and both errors."""

    def __init__(self, block: str, channels: int, width: int, options: Options) -> None:
        super().__init__()
        self.block, self.options = block, options
        self.connector = Connector(channels, width)
        self.needs = Needs(teacher=frozenset({"embedding", "head", "logits"}), student=frozenset({f"features/{block}"}))

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `feature`, weighted, and `regression`."""
        assert teacher.embedding is not None
        assert teacher.head is not None
        projected = self.connector(student.features[self.block])
        pooled = (projected.relu() if self.options.rectify else projected).mean((2, 3))
        feature, regression = regression_losses(pooled, teacher.embedding, teacher.logits, teacher.head)
        return {"feature": self.options.feature_weight * feature, "regression": regression}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses students without maps, and teachers without embedding or head."""
    block, (channels, _, _) = deepest_map(student, key)
    return SRRL(block, channels, teacher_embedding(teacher, key), options)
