"""IC-KD: the student follows what the teacher says of neighbours of the same class, and keeps away from the others.

After Zhu, Li and Wang, "Rethinking 'Knowledge' in Distillation: An In-context Sample Retrieval Perspective", arXiv
2501.07040. **Ours after the abstract**: it retrieves samples in the context of each from a memory bank of the teacher's
features, reduces the discrepancy between the student and the aggregated ones of the same class in logit space, and
separates the student there from those of other classes. How they are aggregated, both losses and all constants are our
choices; published numbers of IC-KD must not be compared with this file's.

z_s(b), z_t(j) are logits, P(b) and N(b) the p samples of the same class and the m samples of other classes whose
embeddings are nearest to that of b in the teacher, of the whole training set; c(x, y) is the cosine of x and y after
the mean over classes is taken off each, z̄(b) the mean of z_t(j) over j in P(b):

    positive(b) = T² KL(softmax(z̄(b) / T) ‖ softmax(z_s(b) / T))
    negative(b) = log( 1 + Σ_{j ∈ N(b)} exp( (c(z_s(b), z_t(j)) - c(z_s(b), z̄(b))) / τ ) )
    L = (1/B) Σ_b [ α positive(b) + β negative(b) ]

The nearest are found once in the cache, exactly, as `pipeline.store.nearest` says, and kept beside it; what the teacher
says of them is read in every step, in the lowest view of the batch. A sample that is alone in its class follows the
teacher's own logits. As the paper's, beside hard labels and KD.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import ConfigError
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.batch import to_device
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes, several_classes, teacher_embedding
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "logits", "labels")


class Options(Section):
    """Configures the objective.

    positives, negatives: p and m. temperature: T > 0. contrast_temperature: τ > 0. positive_weight, negative_weight: α
    and β; 0 leaves one out.
    """

    positives: int = Field(8, gt=0)
    negatives: int = Field(8, gt=0)
    temperature: float = Field(4.0, gt=0)
    contrast_temperature: float = Field(0.1, gt=0)
    positive_weight: float = Field(1.0, ge=0)
    negative_weight: float = Field(1.0, ge=0)


def aggregated(logits: Tensor, present: Tensor, own: Tensor) -> Tensor:
    """Compute z̄, [B, K]: the mean of logits [B, p, K] over those `present`, [B, p]; without any it is `own`."""
    count = present.sum(1, keepdim=True)
    total = precise(logits).masked_fill(~present[:, :, None], 0).sum(1)
    return torch.where(count > 0, total / count.clamp(min=1), precise(own))


def separation(student: Tensor, near: Tensor, others: Tensor, present: Tensor, temperature: float) -> Tensor:
    """Compute `negative` of every sample, in nats: [B].

    student, near: z_s and z̄, [B, K]. others: z_t of N(b), [B, m, K], of which those count that are `present`, [B, m].
    """
    s, p, n = (_direction(x) for x in (student, near, others))
    apart = ((s[:, None] * n).sum(2) - (s * p).sum(1, keepdim=True)) / temperature
    scores = torch.cat((torch.zeros_like(apart[:, :1]), apart.masked_fill(~present, float("-inf"))), dim=1)
    return scores.logsumexp(1)


def _direction(logits: Tensor) -> Tensor:
    x = precise(logits)
    return unit(x - x.mean(-1, keepdim=True), dim=-1)


class ICKD(SampleObjective):
    """What the teacher says of the nearest of a batch, and both losses."""

    near: Tensor
    present: Tensor

    needs = Needs(teacher=frozenset({"embedding", "logits"}), labels=True)

    def __init__(self, context: Context, options: Options) -> None:
        super().__init__()
        self.context, self.options = context, options
        self._nearest: Tensor | None = None  # [N, p + m], -1 for none
        self._same = options.positives  # how many columns of it are of the same class: fewer of few samples
        self.register_buffer("near", torch.empty(0), persistent=False)
        self.register_buffer("present", torch.empty(0, dtype=torch.bool), persistent=False)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Read what the teacher says of the nearest samples of the batch."""
        known, device = batch.on_cpu(), batch.sample.device
        assert self.context.bank is not None
        rows = self._table()[known.sample]
        said = self.context.bank("logits", rows.clamp(min=0).flatten(), int(known.view.min()))
        self.near = to_device(said.reshape(*rows.shape, -1), device)
        self.present = to_device(rows >= 0, device)

    def _table(self) -> Tensor:
        if self._nearest is None:
            assert self.context.nearest is not None
            same = self.context.nearest(self.options.positives, True)
            self._same = same.shape[1]
            self._nearest = torch.cat((same, self.context.nearest(self.options.negatives, False)), dim=1)
        return self._nearest

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `positive` and `negative`, weighted; without one whose weight is 0."""
        options = self.options
        mean = aggregated(self.near[:, : self._same], self.present[:, : self._same], teacher.logits)
        terms = {}
        if options.positive_weight:
            terms["positive"] = options.positive_weight * kl_divergence(student.logits, mean, options.temperature)
        if options.negative_weight:
            others, present = self.near[:, self._same :], self.present[:, self._same :]
            apart = separation(student.logits, mean, others, present, options.contrast_temperature)
            terms["negative"] = options.negative_weight * apart
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, teachers without embeddings, and labels of one class."""
    require_same_classes(student, teacher, key)
    teacher_embedding(teacher, key)
    if problems := several_classes(context, key):
        raise ConfigError(problems)
    return ICKD(context, options)
