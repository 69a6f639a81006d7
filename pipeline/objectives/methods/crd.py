"""CRD: a sample's embedding in one network is told from those of thousands of other samples in the other.

Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699, equation 18, after the
authors' code. h_s, h_t are learned linear embeddings of both networks' embeddings, of length one; M_t, M_s are banks
with such an embedding of every one of the N training samples. For sample i, and m others j of other classes:

    q(j) = exp(<h_s(i), M_t[j]> / τ) / Z
    L = -(1/B) Σ_i [ log q(i) / (q(i) + m/N) + Σ_j log (m/N) / (q(j) + m/N) ]

and the same with h_t and M_s, added. Z = N · mean(q) is fixed by the first batch. Recipe of the code: weight 0.8 beside
hard labels; with 1.0 KD as CRD + KD. Exact from a cache.

Deviations. The teacher's bank is the cache: every sample's exact embedding at the batch's view, through today's linear
map, without momentum or warm-up; `bank: momentum` is the reference's. The student's is a momentum bank in any case. A
step draws one pool, and each sample is contrasted with all of it that is of other classes, weighted as m of them: one
matrix product, where the code gathers B (m + 1) rows. Where the training set has fewer, each stands for several, as
when drawn with repetition. Rows of momentum banks start at length one, not near it. A sample without a label is a class
of its own: its negatives are all other samples.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError
from pipeline.objectives.ahead import Ahead
from pipeline.objectives.bank import MomentumBank, draw_pool, pool_size
from pipeline.objectives.base import Batch, Context, Objective, mixed_labels
from pipeline.objectives.batch import to_device
from pipeline.objectives.embedding import EMBEDDINGS, embeddings
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths, several_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "labels")

EPSILON = 1e-7
"""The reference's, in denominators."""


class Options(Section):
    """embedding_width: D. negatives: m of each sample. temperature: τ > 0. bank: the teacher's.

    momentum: of momentum banks, the share of the old row.
    """

    embedding_width: int = Field(128, gt=0)
    negatives: int = Field(16384, gt=0)
    temperature: float = Field(0.07, gt=0)
    bank: Literal["cache", "momentum"] = "cache"
    momentum: float = Field(0.5, ge=0, lt=1)


class Scores:
    """The cosines of samples with themselves and with negatives in the other network, over the temperature.

    features: [B, D], of one network; own: [B, D], the same samples in the other; pool: [P, D], more of it; of length
    one. other: [B, P] bool, who is whose negative. negatives: m, as many as which a sample's negatives count.
    """

    def __init__(
        self, features: Tensor, own: Tensor, pool: Tensor, other: Tensor, negatives: int, temperature: float
    ) -> None:
        features = features / temperature
        with torch.autocast(features.device.type, enabled=False):
            scores = features @ pool.to(features.dtype).T
        self.positive = (features * own).sum(1)
        self.negative = scores.masked_fill(~other, float("-inf"))  # such a one adds nothing, neither to L nor to Z
        self.share = negatives / other.sum(1).clamp(min=1).to(scores.dtype)
        self.negatives = negatives

    def log_normaliser(self, population: int) -> Tensor:
        """log Z: of N times the mean of exp(score)."""
        with torch.no_grad():
            weighted = self.negative.logsumexp(1) + self.share.log()
            total = torch.cat((self.positive, weighted)).logsumexp(0)
        return total + math.log(population / len(self.positive) / (1 + self.negatives))

    def losses(self, log_normaliser: Tensor, population: int) -> Tensor:
        """L of one direction of every sample, [B], in nats."""
        noise = self.negatives / population
        level = log_normaliser + math.log(noise + EPSILON)  # log(q / (q + c)) = logsigmoid(log q - log c)
        positive = F.logsigmoid(self.positive - level)
        negative = self.share * F.logsigmoid(level - self.negative).sum(1)
        return self.negatives * math.log1p(EPSILON / noise) - (positive + negative)


class CRD(SampleObjective):
    """The noise-contrastive losses of both directions."""

    log_normalisers: Tensor
    groups: Tensor
    pool: Tensor
    remembered: Tensor

    def __init__(self, widths: tuple[int, int], context: Context, options: Options) -> None:
        super().__init__()
        self.context, self.options, self._fixed = context, options, False  # whether the normalisers are known to be
        self.needs = replace(EMBEDDINGS, labels=context.labels is not None and bool((context.labels >= 0).all()))
        self.register_buffer("groups", contrast_groups(context), persistent=False)
        self.register_buffer("pool", torch.empty(0, dtype=torch.long), persistent=False)
        self.register_buffer("remembered", torch.empty(0), persistent=False)
        self._pool_size = pool_size(self.groups, options.negatives)
        width, samples = options.embedding_width, context.num_samples
        self.student, self.teacher = (nn.Linear(each, width) for each in widths)
        self.student_bank = MomentumBank(samples, width, options.momentum)
        self.teacher_bank = MomentumBank(samples, width, options.momentum) if options.bank == "momentum" else None
        self.register_buffer("log_normalisers", torch.full((2,), float("nan")))
        self._ahead = Ahead(self._read)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Draw the pool of the step, and read what the teacher said of it."""
        device, view = batch.sample.device, int(batch.on_cpu().view.min())
        pool, remembered = self._ahead.take(batch.step, view, ahead=device.type != "cpu")
        self.pool = to_device(pool, device)
        if remembered is not None:
            self.remembered = to_device(remembered, device)
        self._fixed = self._fixed or bool(self.log_normalisers.isfinite().all())

    def _read(self, step: int, view: int) -> tuple[Tensor, Tensor | None]:
        """The pool of a step, and the teacher's embeddings of it unless it has a momentum bank: on the CPU."""
        drawn = draw_pool(self.groups, self.options.negatives, self.context.seed, step, self._pool_size)
        if self.teacher_bank is not None:
            return drawn, None
        assert self.context.bank is not None
        return drawn, self.context.bank("embedding", drawn, view)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `student` against the teacher's bank and `teacher` against the student's."""
        options, context = self.options, self.context
        of_student, of_teacher = embeddings(student, teacher)
        s, t = _embedded(self.student, of_student), _embedded(self.teacher, of_teacher)
        own_kind = torch.where(batch.labels >= 0, batch.labels, context.classes + batch.sample)
        other = self.groups[self.pool] != own_kind[:, None]
        own, rows = self._of_teacher(t, batch)
        bank = self.student_bank.rows
        both = [
            Scores(features, *of_other, other, options.negatives, options.temperature)
            for features, of_other in ((s, (own, rows)), (t, (bank[batch.sample], bank[self.pool])))
        ]
        if not self._fixed:
            self.log_normalisers.copy_(torch.stack([each.log_normaliser(context.num_samples) for each in both]))
        levels = zip(both, self.log_normalisers, strict=True)
        losses = [each.losses(level, context.num_samples) for each, level in levels]
        self.student_bank.update(batch.sample, s)
        if self.teacher_bank:
            self.teacher_bank.update(batch.sample, t)
        return {"student": losses[0], "teacher": losses[1]}

    @torch.no_grad()
    def _of_teacher(self, embedded: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.teacher_bank:
            return self.teacher_bank.rows[batch.sample], self.teacher_bank.rows[self.pool]
        return embedded.detach(), _embedded(self.teacher, self.remembered.to(embedded.dtype))


def contrast_groups(context: Context) -> Tensor:
    """int64 [N]: samples with the same number are no negatives of each other. The label, or, without one, K + i."""
    own = context.classes + torch.arange(context.num_samples)
    return own if context.labels is None else torch.where(context.labels >= 0, context.labels, own)


def _embedded(layer: nn.Linear, vectors: Tensor) -> Tensor:
    return unit(precise(layer(vectors)), dim=1)


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings, labels of one class, and labels that views mix."""
    widths = embedding_widths(student, teacher, key)
    objective = CRD(widths, context, options)
    problems = several_classes(replace(context, labels=objective.groups), key)
    if context.labels is not None and not objective.needs.labels and bool((context.labels >= 0).any()):
        problems += mixed_labels(context, key)  # some labels are read, though not every sample needs one
    if problems:
        raise ConfigError(problems)
    return objective
