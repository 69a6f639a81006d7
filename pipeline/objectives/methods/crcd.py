"""CRCD: how samples lie to each other in the teacher, contrasted with how they do in the student.

Zhu, Tang, Chen, Yu, Liu, Rong, Yang and Wang, "Complementary Relation Contrastive Distillation", CVPR 2021, arXiv
2103.16367, after the authors' reimplementation of it. h_s, h_t are learned linear embeddings of both networks'
vectors, of length one; M_t, M_s are banks with such an embedding of every one of the N training samples. For sample
i, an anchor a of the batch, and candidates k, 0 the sample itself and m others of other classes:

    r(i, a) = norm(h_s(i) - M_t[a]),   r(i, a, k) = norm(M_t[k] - M_t[a]),   q_k = exp(<r(i, a), r(i, a, k)> / τ) / Z
    L = -mean over (i, a) of [ log q_0 / (q_0 + m/N) + Σ_k>0 log (m/N) / (q_k + m/N) ]

and the same with h_t and M_s, added. Z = N · mean(q) is fixed by the first batch. Twice over, with embeddings and
banks of their own: for embeddings (term `feature`) and for the gradient of the cross-entropy with respect to them
(`gradient`), which with a linear head is (softmax(z) - onehot(y)) W: no second backward pass, and the teacher's
follows from cached logits, labels and head. The gradient is a sample's, without the 1/B of a mean.

The teacher's bank is the cache: every sample's exact vector at the lowest view of the batch, through today's embedding,
with no momentum and no warm-up. All of it moves with each step, and no gradient holds against that: with AdamW at 0.002
the gradient term grew from 16 to 600 nats, where with `bank: momentum`, the reference's, it fell to 4. With SGD both
went alike. The student's is always a momentum bank.

Deviations. A sample and itself as the anchor have no positive, and a negative that is the anchor has no direction: the
reference takes norm(10⁻⁶), a constant, for it. Here such pairs, whose negatives alone would contrast with nothing, and
such negatives are left out, unless `mask_degenerate` is False. Negatives are drawn from a pool that the batch shares.
Of a larger batch 64 samples are anchors, drawn anew every step, all of the reference's batch of 64: cost grows with
samples times anchors. The reference multiplies the gradient term by the KD loss, which looks like a slip; here it has a
weight. The paper is said to learn the relation by a small network; the public code does not. Recipe of the code: beside
hard labels, and 0.9 KD, both KD and this with weight 1 until the last 10 of 250 epochs, then 0 (`schedule: {off_after:
0.96}` for both).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, Problem
from pipeline.objectives.bank import MomentumBank, draw_negatives, draw_some, pool_size, with_room
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.batch import to_device
from pipeline.objectives.precision import precise
from pipeline.objectives.relations import Relations
from pipeline.objectives.requirements import embedding_widths, several_classes
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "head", "logits", "labels")


ADAPTIVE_HINT = "may diverge with adaptive optimisers such as AdamW: `bank: momentum` does not"


class Options(Section):
    """embedding_width: D. negatives: m of each sample. anchors: how many of a batch at most.

    temperature: τ; N exp(1/τ) has to fit float32. bank: the teacher's. momentum: of momentum banks, the share of the
    old row. gradient_weight: of the gradient term, 0 to leave it out.
    """

    embedding_width: int = Field(128, gt=0)
    negatives: int = Field(500, gt=0)
    anchors: int = Field(64, gt=0)
    temperature: float = Field(0.05, ge=0.02)
    bank: Literal["cache", "momentum"] = "cache"
    momentum: float = Field(0.5, ge=0, lt=1)
    gradient_weight: float = Field(1.0, ge=0)
    mask_degenerate: bool = True


def relation_loss(
    features: Tensor,
    bank: Tensor,
    sample_index: Tensor,
    candidate_index: Tensor,
    temperature: float,
    mask_degenerate: bool = True,
    *,
    normaliser: Tensor | float | None = None,
) -> Tensor:
    """L of one direction, in nats: a mean over pairs of sample and anchor. Not differentiated into the bank.

    features: [B, D], embedded, of length one, of one network. bank: [N, D], the other network's. sample_index: [B], the
    samples' rows in the bank; they are the anchors, too. candidate_index: [B, 1 + m], candidate 0 the sample itself.
    normaliser: Z; from this batch if None. 0 for a batch of one sample, which has no relations.
    """
    features = precise(features)
    used, place = torch.unique(candidate_index[:, 1:].sort(dim=1).values, return_inverse=True)
    numbers, anchors = torch.cat((sample_index, used)), torch.arange(len(features), device=features.device)
    shared = shared_by_most(place, len(used))
    relations = Relations(features, bank[numbers], numbers, anchors, place, temperature, mask_degenerate, shared=shared)
    if normaliser is None:
        normaliser = relations.normaliser(len(bank))
    return relations.loss(torch.as_tensor(normaliser, dtype=features.dtype), len(bank))


@dataclass
class Contrasted:
    """What a step draws: `numbers` [B + P] of the samples and of a pool, and what `Relations` makes of them.

    columns: [B, m], its negatives. anchors: [A], rows of the batch. shared: as there.
    """

    numbers: Tensor
    columns: Tensor
    anchors: Tensor
    shared: bool


def shared_by_most(columns: Tensor, size: int) -> bool:
    """Whether rows of negatives [B, m], each ascending, share most of a pool of that size, and none has one twice."""
    return size <= 2 * columns.shape[1] and bool((columns.diff(dim=1) > 0).all())


def has_enough(labels: Tensor, batch_labels: Tensor, pool: Tensor, count: int) -> bool:
    """Whether a pool [P] has `count` samples of other classes for every row of a batch, so that none has one twice.

    labels: [N], batch_labels: [B], from 0. All are on the CPU.
    """
    own = torch.bincount(labels[pool], minlength=int(batch_labels.max()) + 1)
    return len(pool) - int(own[batch_labels].max()) >= count


class Element(nn.Module):
    """Embeddings, banks and normalisers for one kind of vector: the embedding, or the gradient."""

    normalisers: Tensor

    def __init__(self, student_width: int, teacher_width: int, samples: int, options: Options) -> None:
        super().__init__()
        self.options, self.samples, self.fixed = options, samples, False
        width, momentum = options.embedding_width, options.momentum
        self.student, self.teacher = nn.Linear(student_width, width), nn.Linear(teacher_width, width)
        self.student_bank = MomentumBank(samples, width, momentum)
        self.teacher_bank = MomentumBank(samples, width, momentum) if options.bank == "momentum" else None
        self.register_buffer("normalisers", torch.full((2,), float("nan")))

    def look(self) -> None:
        """See whether the normalisers are fixed."""
        self.fixed = self.fixed or bool(self.normalisers.isfinite().all())

    def forward(self, student: Tensor, teacher: Tensor, drawn: Contrasted, remembered: Tensor | None) -> Tensor:
        """Both directions. student [B, D_s], teacher [B, D_t].

        remembered: the teacher's vectors of the samples and of the pool; None with a momentum bank.
        """
        numbers = drawn.numbers
        s, t = self._embedded(self.student, student), self._embedded(self.teacher, teacher)
        with torch.no_grad():
            rows = self.teacher_bank.rows[numbers] if self.teacher_bank else self._embedded(self.teacher, remembered)
        temperature, mask = self.options.temperature, self.options.mask_degenerate
        relations = [
            Relations(features, bank, numbers, drawn.anchors, drawn.columns, temperature, mask, drawn.shared)
            for features, bank in ((s, rows), (t, self.student_bank.rows[numbers]))
        ]
        if not self.fixed:  # and stay NaN, where one sample has no relations
            self.normalisers.copy_(torch.stack([each.normaliser(self.samples) for each in relations]))
        losses = [each.loss(z, self.samples) for each, z in zip(relations, self.normalisers, strict=True)]
        samples = numbers[: len(student)]
        self.student_bank.update(samples, s)
        if self.teacher_bank:
            self.teacher_bank.update(samples, t)
        return losses[0] + losses[1]

    def _embedded(self, layer: nn.Linear, vectors: Tensor | None) -> Tensor:
        assert vectors is not None
        return unit(precise(layer(vectors)), 1)


def gradients(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """The gradient of every sample's cross-entropy with respect to its embedding: (softmax(z) - onehot(y)) W, [B, D].

    Of a network with a linear head, logits [B, K], labels [B], weight [K, D]; differentiable.
    """
    error = precise(logits).softmax(1)
    error = error - (labels[:, None] == torch.arange(error.shape[1], device=labels.device)).to(error.dtype)
    with torch.autocast(error.device.type, enabled=False):
        return error @ weight.to(error.dtype)


class CRCD(Objective):
    """The relation contrastive losses of embeddings and of gradients."""

    labels: Tensor
    numbers: Tensor
    columns: Tensor
    anchors: Tensor
    embeddings: Tensor
    logits: Tensor

    def __init__(self, widths: tuple[int, int], context: Context, options: Options) -> None:
        super().__init__()
        self.context, self.options, self._shared = context, options, False
        self.feature = Element(*widths, context.num_samples, options)
        self.gradient = Element(*widths, context.num_samples, options) if options.gradient_weight else None
        read = {"embedding", "head", "logits"} if options.gradient_weight else {"embedding"}
        self.needs = Needs(teacher=frozenset(read), student=frozenset({"logits", "embedding"}), labels=True)
        labels = torch.zeros(1, dtype=torch.long) if context.labels is None else context.labels  # refused without
        self._size = pool_size(labels, with_room(options.negatives))
        self.register_buffer("labels", labels, persistent=False)
        for name in ("numbers", "columns", "anchors", "embeddings", "logits"):
            self.register_buffer(name, torch.empty(0), persistent=False)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Draw negatives and anchors, and read what the teacher said of them and of the batch."""
        options, seed, device, given = self.options, self.context.seed, batch.sample.device, batch.on_cpu()
        drawn = draw_negatives(self.labels, batch.labels, options.negatives, seed, batch.step, self._size)
        pool, self.columns = drawn.pool, drawn.columns
        if device.type == "cpu":  # where shapes need not be the same in every step: what no row looks at is left out
            pool = pool[: int(self.columns.max()) + 1]
            self._shared = shared_by_most(self.columns, len(pool))
        else:  # where to look at the columns would be to wait for them
            assert self.context.labels is not None
            enough = has_enough(self.context.labels, given.labels, pool, options.negatives)
            self._shared = enough and len(pool) <= 2 * options.negatives
        anchors = draw_some(given.sample, options.anchors, seed, batch.step)
        self.anchors = to_device((given.sample == anchors[:, None]).int().argmax(1), device)
        numbers = torch.cat((given.sample, pool))
        self.numbers = to_device(numbers, device)
        if options.bank == "cache":
            assert self.context.bank is not None
            view = int(given.view.min())
            self.embeddings = to_device(self.context.bank("embedding", numbers, view), device)
            if self.gradient is not None:
                self.logits = to_device(self.context.bank("logits", numbers, view), device)
        for element in (self.feature, self.gradient):
            if element is not None:
                element.look()

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Terms `feature` and, unless its weight is 0, `gradient` times its weight."""
        assert student.embedding is not None
        assert teacher.embedding is not None
        drawn = Contrasted(self.numbers, self.columns, self.anchors, self._shared)
        of_cache = self.options.bank == "cache"
        bank = self.embeddings if of_cache else None
        terms = {"feature": self.feature(student.embedding, teacher.embedding, drawn, bank)}
        if self.gradient is not None:
            assert student.head is not None
            assert teacher.head is not None
            if of_cache:
                bank = gradients(self.logits, self.labels[self.numbers], teacher.head.weight)
            s = gradients(student.logits, batch.labels, student.head.weight)
            t = gradients(teacher.logits, batch.labels, teacher.head.weight)
            terms["gradient"] = self.options.gradient_weight * self.gradient(s, t, drawn, bank)
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings, and without a head if gradients are compared; and labels of one class."""
    widths = embedding_widths(student, teacher, key)
    problems = several_classes(context, key)
    if options.gradient_weight and student.linear is None:
        fix = "set `gradient_weight: 0` to compare embeddings alone"
        problems.append(Problem(key, "needs a linear head of the student for its gradient", fix=fix))
    if problems:
        raise ConfigError(problems)
    objective = CRCD(widths, context, options)
    if options.gradient_weight and options.bank == "cache":
        objective.notes = (ADAPTIVE_HINT,)
    return objective
