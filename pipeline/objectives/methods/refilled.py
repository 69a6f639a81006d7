"""REFILLED: first which of two samples is nearer to a third, then how near each is to the classes of the batch.

"Distilling Cross-Task Knowledge via Relationship Matching", CVPR 2020; "Generalized Knowledge Distillation via
Relationship Matching", TPAMI 2022, after the authors' code. Two parts, one after the other. `relation`: d are Euclidean
distances of embeddings of length one; triples are an anchor, a sample p of its class and one n of another which the
student has farther away than p by no more than 0.2; Be is a yes-or-no distribution:

    R = mean over triples of KL( Be(σ((d_t(a,n) - d_t(a,p)) / τ₁)) ‖ Be(σ((d_s(a,n) - d_s(a,p)) / τ₁)) ),   τ₁ = 4

`classes`: for the classes c that are in the batch, e_c the teacher's mean embedding of class c, of length one:

    C = (1/B) Σ_b KL( softmax_c(<f_t(b), e_c> / τ₂) ‖ softmax_c(z_s,c(b) / τ₂) ),   τ₂ = 2, no factor τ₂²

L = 1000 R up to `relation_share` of the training, half of it as in the code, and 100 C from there on. Recipe: weight 1
beside hard labels from then on (`schedule: {on_after: 0.5}`, theirs). The teacher's own classes do not enter: it may
know others than the student. Widths may differ. Exact from a cache.

`tuples: true` is a variant of the code: divergences of softmaxes over the distances of an anchor to p and to all its n
at once, a mean over pairs (a, p). Deviations: the code puts both outcomes of Be into rows of their own, under a mean
over rows, which halves R. f_t is not of length one in C, as in the code: else its softmax would be nearly uniform.
Class means are over the cached views.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.batch import to_device
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.embedding import embeddings, gram
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import embedding_widths, several_classes
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "labels")

FAR = -1e4
"""The logit of what is no negative: its probability is 0, and so is its share of a divergence."""


class Options(Section):
    """relation_share: the share of training with the first part, 0 to 1. margin: of negatives, in the student.

    relation_temperature, class_temperature: τ₁, τ₂ > 0. relation_weight, class_weight: of the parts. tuples: compare
    all negatives of a pair at once.
    """

    relation_share: float = Field(0.5, ge=0, le=1)
    margin: float = Field(0.2, gt=0)
    relation_temperature: float = Field(4.0, gt=0)
    class_temperature: float = Field(2.0, gt=0)
    relation_weight: float = Field(1000.0, ge=0)
    class_weight: float = Field(100.0, ge=0)
    tuples: bool = False


def same_class_pairs(labels: Tensor) -> Tensor:
    """Collect the pairs of different samples of one class: rows of a batch, [2, M].

    M is a multiple of the batch's size, so that there are few shapes: the pairs are followed by some of a sample with
    itself, which count for nothing.

    Args:
        labels: [B].
    """
    pairs = (labels[:, None] == labels).fill_diagonal_(False).nonzero().T
    return F.pad(pairs, (0, -pairs.shape[1] % len(labels) if pairs.shape[1] else len(labels)))


def refilled_relation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    margin: float,
    temperature: float,
    tuples: bool = False,
    pairs: Tensor | None = None,
) -> Tensor:
    """R of embeddings [B, D_s] and [B, D_t], labels [B], in nats: a mean over triples, or pairs; 0 without any.

    pairs: `same_class_pairs` of the labels, if they are known.
    """
    anchors, positives = same_class_pairs(labels) if pairs is None else pairs
    (s_near, s_far), (t_near, t_far) = (_distances(x, anchors, positives) for x in (student, teacher))
    beyond = s_far.detach() - s_near.detach()
    others = labels[anchors][:, None] != labels
    chosen = others & (beyond > 0) & (beyond <= margin) & (anchors != positives)[:, None]
    if not tuples:
        s, t = ((far - near) / temperature for near, far in ((s_near, s_far), (t_near, t_far)))
        # Of yes and no, whose logits are x and 0: log σ(-x) is log σ(x) - x.
        divergence = F.logsigmoid(t) - F.logsigmoid(s) + (s - t) * (-t).sigmoid()
        return _mean_where(chosen, divergence)
    s, t = (
        torch.cat((-near / temperature, (-far / temperature).masked_fill(~chosen, FAR)), dim=1)
        for near, far in ((s_near, s_far), (t_near, t_far))
    )
    return _mean_where(chosen.any(1), kl_divergence(s, t))


def _mean_where(chosen: Tensor, values: Tensor) -> Tensor:
    """The mean of the values that are chosen; 0 without any."""
    return values.masked_fill(~chosen, 0).sum() / chosen.sum().clamp(min=1)


def _distances(x: Tensor, anchors: Tensor, positives: Tensor) -> tuple[Tensor, Tensor]:
    """Of M anchors to their positives, [M, 1], and to all samples, [M, B]. A distance of 0 has no gradient."""
    squares = 2 - 2 * gram(unit(precise(x), dim=1))
    apart = squares.detach() > 8 * torch.finfo(squares.dtype).eps
    distances = torch.where(apart, squares, 1).sqrt() * apart
    return distances[anchors, positives][:, None], distances[anchors]


def class_loss(logits: Tensor, embedding: Tensor, means: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """C of the student's logits [B, K] and the teacher's embeddings [B, D], in nats: a mean over the batch.

    means: [K, D], of the teacher's embeddings, by class. labels: [B].
    """
    z, t = precise(logits), precise(embedding)
    if z.shape[1] <= len(labels):
        classes = torch.arange(z.shape[1], device=labels.device)
        absent = (labels[:, None] != classes).all(0)
    else:  # each sample brings its class, if none before it does
        classes, absent = labels, (labels[:, None] == labels).tril(-1).any(1)
    with torch.autocast(t.device.type, enabled=False):
        nearness = t @ unit(precise(means).to(t.dtype)[classes], dim=1).T
    s, t = ((x / temperature).masked_fill(absent, float("-inf")).log_softmax(1) for x in (z[:, classes], nearness))
    return (t.exp() * (t - s).masked_fill(absent, 0)).sum(1).mean()


class Refilled(Objective):
    """The first part, then the second."""

    needs = Needs(teacher=frozenset({"embedding"}), student=frozenset({"embedding", "logits"}), labels=True)
    _means: Tensor
    _pairs: Tensor

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        self.context, self.options = context, options
        self.register_buffer("_means", torch.empty(0), persistent=False)
        self.register_buffer("_pairs", torch.empty(2, 0, dtype=torch.long), persistent=False)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Collect the pairs of one class in the first part; ask for the means of classes, once, in the second."""
        if progress < self.options.relation_share:
            self._pairs = to_device(same_class_pairs(batch.on_cpu().labels), batch.labels.device)
        elif not len(self._means):
            assert self.context.class_means is not None
            self._means = self.context.class_means().to(batch.labels.device)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `relation` or `classes`, weighted."""
        options, labels = self.options, batch.labels
        s, t = embeddings(student, teacher)
        if progress < options.relation_share:
            given = options.margin, options.relation_temperature, options.tuples, self._pairs
            loss = refilled_relation_loss(s, t, labels, *given)
            return {"relation": options.relation_weight * loss}
        loss = class_loss(student.logits, t, self._means, labels, options.class_temperature)
        return {"classes": options.class_weight * loss}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks without embeddings, and labels of one class."""
    embedding_widths(student, teacher, key)
    if problems := several_classes(context, key):
        raise ConfigError(problems)
    return Refilled(context, options)
