"""TAS: embeddings told apart by contrast, and the teacher's probabilities; or a contrast of smoothed maps.

Li, Wang, Yan, Ding, Gao and Xia, "TAS: Distilling Arbitrary Teacher and Student via a Hybrid Assistant", arXiv
2410.12342, published as "Fuse Before Transfer" (FBT) at ICCV 2025. Its loss is L(t,s) + L(t,a) + L(a,s) of teacher,
student and an assistant, each with a pooled final feature f and logits z. The assistant has the teacher's last stage
in it, which trains, so the two terms with it cannot be had from a cache. The first is here, exactly:

    u(b) = norm(φ f_s(b)),   v(b) = norm(f_t(b))
    L(t,s) = -(1/B) Σ_b log( exp(u(b)·v(b)/τ) / Σ_{j ∈ N(b)} exp(u(b)·v(j)/τ) ) + ℓ_OFA(z_s, z_t)

τ is learned. ℓ_OFA is the loss of `ofa` on final logits: with ε = 1 cross-entropy with the teacher's probabilities.
N(b) holds b and every row of another sample: two views of one sample are not each other's negatives. The paper's
ablation (Swin-T to ResNet-18, CIFAR-100, 81.61 in all) has 80.95 without the contrast and 77.91 without OFA's loss,
both with the assistant; what this term gives without it is not published. No code of the authors was found. So these
are ours: φ, a linear map to the teacher's width; one direction of the contrast, in which the student's row looks for
its teacher's; τ at first 0.07 and at least 0.01, as CLIP has it. Weight decay, which CLIP spares it, draws log(1/τ)
towards 0 with all else that the objective learns: by the learning rate times the decay in a step of AdamW, and ten
times that with SGD's momentum of 0.9.

`form: smoothed` is what `tas` was in Decant 0.1, made after the first abstract, which replaces the squared error of
places by a spatial-agnostic InfoNCE after smoothing. A set that names one of its options, `blocks`, `grid` or
`temperature`, has this form without saying so, and means what it meant. For every pair of blocks k (from the deepest
backwards), with means over r x r cells, 1 x 1 by default, and vectors of all cells in place of f:

    u(b) = norm(vec(φ_k(mean F_s(b)))),   v(b) = norm(vec(ψ(mean F_t(b)))),   L = mean over k of the contrast

φ_k is a learned projection of channels and a batch normalisation, ψ the same normalisation without anything learned:
means of maps after activation all point alike, and cosines of them would tell samples hardly apart. LFCC (`lfcc`) is
the same with several scales and in both directions. Exact from a cache low-passed by `mean`, where r divides the
cached grid, and by `dct`, with low frequencies in place of means. Published numbers of TAS must not be compared with
either form's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.base import Batch, BlockPair, Context, Needs, Objective, pair_blocks
from pipeline.objectives.embedding import embeddings
from pipeline.objectives.maps import CellNorm, Connector, needs_of
from pipeline.objectives.methods.lfcc import contrast
from pipeline.objectives.methods.ofa import enhanced
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths, refuse_idle, require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass
from pipeline.yaml_text import Raw

READS = ("embedding", "logits")

OPTIONS_OF_FORMS = {"published": ("initial_temperature", "epsilon"), "smoothed": ("blocks", "grid", "temperature")}
"""The options that each form reads. Those of `smoothed` are all that version 0.1 had."""

LOWEST_TEMPERATURE = 0.01
"""Of the learned one, as in CLIP (Radford et al., arXiv 2103.00020, section 2.5): logits are scaled by 100 at most."""


class Options(Section):
    """form: `published` or `smoothed`. initial_temperature: τ > 0 at first, from where it is learned. epsilon: ε >= 1.

    Of the form `smoothed` alone: blocks: the teacher's, default all that are cached. grid: r, cells a side.
    temperature: τ > 0, which stays.
    """

    form: Literal["published", "smoothed"] = "published"
    initial_temperature: float = Field(0.07, gt=0)
    epsilon: float = Field(1.0, ge=1)
    blocks: tuple[str, ...] | None = None
    grid: int = Field(1, gt=0)
    temperature: float = Field(0.1, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _as_in_version_0_1(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and "form" not in given and given.keys() & {*OPTIONS_OF_FORMS["smoothed"]}:
            return {**given, "form": "smoothed"}
        return given

    @model_validator(mode="after")
    def _read(self) -> Self:
        refuse_idle(self, f"form {self.form!r}", self._idle())
        return self

    def _idle(self) -> tuple[str, ...]:
        return OPTIONS_OF_FORMS["published" if self.form == "smoothed" else "smoothed"]

    def for_identity(self, *left_out: str) -> Raw:
        """Return the options that the form reads. Of `smoothed` they are as in version 0.1, which did not name it.

        Args:
            left_out: keys that are no part of the identity.
        """
        unnamed = ("form",) if self.form == "smoothed" else ()
        return super().for_identity(*left_out, *unnamed, *self._idle())


def smoothed_contrast(student: Tensor, teacher: Tensor, same: Tensor, temperature: float) -> Tensor:
    """InfoNCE of maps [B, C, r, r] in nats: which of the teacher's is the student's own; of every row, [B].

    same: [B, B] bool, pairs of different rows that are no negatives.
    """
    return contrast([student.flatten(1)], [teacher.flatten(1)], same, temperature, symmetric=False)


def other_rows_of_a_sample(batch: Batch) -> Tensor:
    """[B, B] bool: pairs of different rows that are of one sample."""
    same = batch.sample[:, None] == batch.sample
    same.fill_diagonal_(False)
    return same


class EmbeddingTAS(SampleObjective):
    """The form `published`: a contrast of embeddings with a learned temperature, and OFA's loss of the logits."""

    def __init__(self, widths: tuple[int, int], options: Options) -> None:
        super().__init__()
        self.epsilon = options.epsilon
        self.projector = nn.Linear(*widths, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(options.initial_temperature)))
        both = frozenset({"embedding", "logits"})
        self.needs = Needs(teacher=both, student=both, labels=options.epsilon != 1)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `contrast` and `logits`."""
        of_student, of_teacher = embeddings(student, teacher)
        with torch.no_grad():  # the last step may have led beyond the bound, from where a clamp has no gradient back
            self.log_scale.clamp_(max=-math.log(LOWEST_TEMPERATURE))
        temperature = torch.exp(-self.log_scale)
        projected = precise(self.projector(of_student))
        same = other_rows_of_a_sample(batch)
        with torch.autocast(projected.device.type, enabled=False):  # at τ = 0.01 bfloat16 is off by up to 0.2 nats
            told = contrast([projected], [of_teacher], same, temperature, symmetric=False)
        return {"contrast": told, "logits": enhanced(student.logits, teacher.logits, batch.labels, self.epsilon, 1.0)}


class SmoothedTAS(SampleObjective):
    """The form `smoothed`: the mean contrast over pairs of blocks."""

    def __init__(self, pairs: list[BlockPair], options: Options, low_pass: str) -> None:
        super().__init__()
        self.pairs, self.grid, self.temperature, self.low_pass = pairs, options.grid, options.temperature, low_pass
        self.projectors = nn.ModuleList(Connector(pair.student_shape[0], pair.teacher_shape[0]) for pair in pairs)
        self.norms = nn.ModuleList(CellNorm(pair.teacher_shape[0], affine=False) for pair in pairs)
        self.needs = needs_of(pairs)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `smoothed`."""
        same = other_rows_of_a_sample(batch)
        losses = []
        for pair, projector, norm in zip(self.pairs, self.projectors, self.norms, strict=True):
            s = lowpass(student.features[pair.student], self.grid, self.low_pass)
            t = lowpass(teacher.features[pair.teacher], self.grid, self.low_pass)
            losses.append(smoothed_contrast(projector(s), norm(precise(t)), same, self.temperature))
        return {"smoothed": torch.stack(losses).mean(0)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings or with different classes; of maps, a grid that is finer than a map."""
    if options.form == "published":
        require_same_classes(student, teacher, key)
        return EmbeddingTAS(embedding_widths(student, teacher, key), options)
    pairs = pair_blocks(student, teacher, options.blocks, key)
    coarsest = min(side for pair in pairs for side in (*pair.student_shape[1:], *pair.teacher_shape[1:]))
    if options.grid > coarsest:
        what = f"is finer than the coarsest map of the paired blocks, {coarsest} cells a side"
        raise ConfigError([Problem(f"{key}.grid", what, got=str(options.grid), fix=f"use {coarsest} at most")])
    return SmoothedTAS(pairs, options, teacher.filter)
