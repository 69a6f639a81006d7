"""SimKD: the student's last map is projected to the teacher's embedding, and the teacher's classifier is reused.

Chen, Mei, Zhang, Wang, Feng and Chen, "Knowledge Distillation with the Reused Teacher Classifier", CVPR 2022, arXiv
2203.14001, after the authors' code. r is a learned bottleneck of the student's last map F_s: convolutions 1 x 1 to D/2,
3 x 3, and 1 x 1 to the teacher's width D, each batch-normalised and rectified; g(b) is the mean of r(F_s(b)) over
cells, f_t the teacher's embedding, which its classifier reads:

    L = mean over b, d of (g_d(b) - f_t,d(b))²,   at inference z = W_t g + b_t

The student is trained by L alone (recipe: weight 1, no hard labels, no KD), and its own classifier not at all: what is
scored and exported is r with the teacher's classifier behind it (`pipeline.models.reused`, in the student's folder
`head.safetensors`). Other objectives may be in the set: those on logits teach the student's own classifier, and by it
the maps that r reads, but neither is it scored.

Approximate: the paper's L compares maps place by place, r(F_s) with F_t; here it compares their means, which are all
that the classifier sees. `target: map` compares maps, r(F_s) low-passed to the grid of the cached ones: fewer places
than the paper's, or the paper's L where the grid is the teacher's own. `rectify: false` leaves out the last rectifier,
for teachers whose embeddings have negative entries (ViT, ConvNeXt), which it could not reach.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.models.reused import Projector
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.layers import squared_errors
from pipeline.objectives.maps import comparable_last_maps, on_one_grid
from pipeline.objectives.requirements import deepest_map, teacher_embedding
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("embedding", "head")


class Options(Section):
    """factor: the bottleneck is D / factor wide. target: what the projection is compared with.

    rectify: whether the projection ends in a rectifier, as in the reference.
    """

    factor: int = Field(2, gt=0)
    target: Literal["embedding", "map"] = "embedding"
    rectify: bool = True


class SimKD(SampleObjective):
    """The squared error of the projection, which is kept at inference."""

    def __init__(self, blocks: tuple[str, str | None], channels: int, width: int, options: Options, low_pass: str):
        super().__init__()
        (self.block, self.target), self.low_pass = blocks, low_pass
        narrow = max(1, width // options.factor)
        self.projector = Projector(self.block, channels, narrow, width, options.rectify)
        compared = f"features/{self.target}" if self.target else "embedding"
        self.needs = Needs(teacher=frozenset({compared, "head"}), student=frozenset({f"features/{self.block}"}))

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `feature`."""
        projected = self.projector(student.features[self.block])
        if self.target:
            return {"feature": squared_errors(*on_one_grid(projected, teacher.features[self.target], self.low_pass))}
        assert teacher.embedding is not None
        return {"feature": squared_errors(projected.mean((2, 3)), teacher.embedding)}

    def kept(self) -> Projector:
        """The projection."""
        return self.projector


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses students without maps, and teachers without what it is compared with, or without a head."""
    block, (channels, _, _) = deepest_map(student, key)
    if options.target == "embedding":
        return SimKD((block, None), channels, teacher_embedding(teacher, key), options, teacher.filter)
    pair = comparable_last_maps(student, teacher, key, behind_head=True)
    return SimKD((pair.student, pair.teacher), channels, pair.teacher_shape[0], options, teacher.filter)
