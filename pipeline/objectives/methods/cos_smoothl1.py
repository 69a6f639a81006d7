"""cos-smoothl1: the student's vectors, projected, have the teacher's directions, and nearly its values.

The loss of UNIC (Sariyildiz et al., ECCV 2024, arXiv 2408.05088), of Theia (Shang et al., CoRL 2024, arXiv 2407.20179)
and of others that learn from several foundation models, after the authors' code. P is a learned linear map to the
teacher's width D, x a sample's embedding or its vector at a place of the map (a token, of a ViT):

    L(x) = c · (1 - cos(P x_s, x_t)) + l · (1/D) Σ_d h((P x_s - x_t)_d),   h(e) = ½ e² up to 1, |e| - ½ beyond

L is the mean over samples, and over places. With `compare: both` it is the mean of the embedding's and the map's.

UNIC: c = l = ½, for the embedding (class token) and the places of the map, both. Theia: `cosine: 0.9, smooth_l1: 0.1,
compare: map, angle: map`, where the cosine is of the whole map as one vector. Both standardise the teacher's vectors
before, as `standardise: channels` does, which every objective takes; without it the smooth L1 distance follows whatever
is large. With several teachers each has an objective of its own; UNIC then leaves some out (`teacher_dropping`).
It reads no label.

Exact from a cache for embeddings. Maps are compared on the cached grid: exact if it is as large as the teacher's map.
Deviation: P is one linear map, where UNIC has a small network at several depths, and Theia convolutions.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.objectives.base import Batch, BlockPair, Context, Objective
from pipeline.objectives.embedding import embeddings
from pipeline.objectives.maps import needs_of, on_one_grid, pair_maps
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths, refuse_idle
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding",)


class Options(Section):
    """Configures the objective.

    compare: embeddings, maps, or both. cosine, smooth_l1: c and l. angle: whether the cosine is of each place of a map,
    or of the whole map as one vector. blocks: the teacher's blocks whose maps they are, of several the mean (default:
    the deepest that is cached).
    """

    compare: Literal["embedding", "map", "both"] = "embedding"
    cosine: float = Field(0.5, ge=0)
    smooth_l1: float = Field(0.5, ge=0)
    angle: Literal["place", "map"] = "place"
    blocks: tuple[str, ...] | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _is_read(self) -> Options:
        if not self.cosine + self.smooth_l1:
            raise ValueError("`cosine` and `smooth_l1` are both 0: nothing is compared")
        if self.compare == "embedding":
            refuse_idle(self, "`compare: embedding`", ("angle", "blocks"))
        return self


def distances(student: Tensor, teacher: Tensor, *, whole: bool = False) -> tuple[Tensor, Tensor]:
    """Compute 1 - cos, and the smooth L1 distance, of every sample: [B] each, means over places and dimensions.

    student, teacher: vectors [B, D] or [B, P, D] of P places, the former projected. whole: one cosine for all places.
    """
    s, t = (precise(x).reshape(len(x), -1, x.shape[-1]) for x in (student, teacher))
    ones, others = (x.flatten(1)[:, None] if whole else x for x in (s, t))
    angle = 1 - (unit(ones, dim=2) * unit(others, dim=2)).sum(2)
    return angle.mean(1), F.smooth_l1_loss(s, t, reduction="none").mean((1, 2))


class CosSmoothL1(SampleObjective):
    """A linear map for each signal that is compared, and both distances."""

    def __init__(self, widths: tuple[int, int] | None, pairs: list[BlockPair], low_pass: str, options: Options) -> None:
        super().__init__()
        self.options, self.pairs, self.low_pass = options, pairs, low_pass
        self.embedding = nn.Linear(*widths) if widths else None
        self.maps = nn.ModuleList(nn.Linear(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.needs = needs_of(pairs, *(["embedding"] if widths else []))

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `cosine` and `smooth_l1`, weighted; without one whose weight is 0."""
        found = []
        with torch.autocast(batch.sample.device.type, enabled=False):
            if self.embedding is not None:
                s, t = embeddings(student, teacher)
                found.append(distances(self.embedding(s), t))
            of_maps = []
            for pair, projector in zip(self.pairs, self.maps, strict=True):
                maps = on_one_grid(student.features[pair.student], teacher.features[pair.teacher], self.low_pass)
                s, t = (x.flatten(2).transpose(1, 2) for x in maps)
                of_maps.append(distances(projector(s), t, whole=self.options.angle == "map"))
            if of_maps:
                found.append(_mean(of_maps))
        angle, apart = _mean(found)
        terms = {}
        if self.options.cosine:
            terms["cosine"] = self.options.cosine * angle
        if self.options.smooth_l1:
            terms["smooth_l1"] = self.options.smooth_l1 * apart
        return terms


def _mean(of_several: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The mean of both distances over several signals."""
    angles, apart = zip(*of_several, strict=True)
    return torch.stack(angles).mean(0), torch.stack(apart).mean(0)


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Pairs the blocks; refuses networks without what is compared."""
    widths = embedding_widths(student, teacher, key) if options.compare != "map" else None
    reads_maps = options.compare != "embedding"
    pairs = pair_maps(student, teacher, options.blocks, key, deepest=True) if reads_maps else []
    return CosSmoothL1(widths, pairs, teacher.filter, options)
