"""WKD-L: probability is moved between classes until it lies as in the teacher, at little cost between classes alike.

Lv, Yang and Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation", NeurIPS 2024,
arXiv 2412.08139, the part on logits. With y the target, a = softmax(z / T) of the student and b = softmax(t / T) of the
teacher, both over the K - 1 other classes, and the cost C_ij of moving probability from class i to class j:

    target = -(1/B) Σ p_t,y log p_s,y                       p = softmax at temperature 1
    transport = w · (1/B) Σ_b Σ_ij P_ij C_ij,   P = diag(u) G diag(v),   G = exp(-C / ε)
    u = 1 / (K - 1) at first, then as often as there are iterations:   v = b / (Gᵀ u + δ),   u = a / (G v + δ)

P is Sinkhorn's plan. Its iterations are part of the loss, and the gradient goes through them: after the authors' ten it
is far from the best plan, whose cost can be twice as high. So neither part is 0 at student = teacher. C = 1 - exp(-κ ·
(1 - cos of both classes)), at least 0 and with δ added; κ = 0: 1 - cos. The cosine is that of rows of the teacher's
classifier (`cost: head`), or of its mean embeddings of the classes (`cost: class-means`).

T = 8, w = 600, ε = 0.05, κ = 1 and δ = 10⁻⁸ are those of the authors' code for CIFAR-100, beside hard labels; there the
loss falls by a cosine from epoch 150 of 240 on, which is left out here. Exact from a cache.

The authors take the target's row and column out of C, which makes B matrices of (K - 1)². Here all samples share G: the
target's class stays, with a_y = b_y = 0 and u_y = 0 at first, so that u_y and v_y are 0 for ever and P is the same.
With 1,000 classes that is 4 MB instead of 4 MB for each sample.

Deviations. Mean embeddings are centred on their common mean before the cosine is taken, since those behind a ReLU are
all alike: this is ours, the authors use CKA of features of several images of each class.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("head", "logits", "labels")

DELTA = 1e-8
"""The reference's, added to costs and to denominators."""


class Options(Section):
    """Holds the constants.

    Args:
        cost: whose cosines say how far classes are from each other.
        transport_weight: w, of the transport. temperature: T > 0, of the other classes.
        epsilon: ε > 0, of the entropy: a smaller one has each class stay where it is cheap. iterations: of Sinkhorn.
        sharpen: κ; 0 takes one minus the cosine as it is.
    """

    cost: Literal["head", "class-means"] = "head"
    transport_weight: float = Field(600.0, ge=0)
    temperature: float = Field(8.0, gt=0)
    epsilon: float = Field(0.05, gt=0)
    iterations: int = Field(10, ge=1)
    sharpen: float = Field(1.0, ge=0)


def class_costs(rows: Tensor, sharpen: float) -> Tensor:
    """C of all pairs of classes, [K, K], from a vector of each, [K, D]."""
    directions = unit(precise(rows), dim=1)
    distance = 1 - directions @ directions.T
    return (1 - (-sharpen * distance).exp() if sharpen else distance).clamp(min=0) + DELTA


def transport_costs(student: Tensor, teacher: Tensor, labels: Tensor, costs: Tensor, options: Options) -> Tensor:
    """Compute Σ P_ij C_ij of every sample, [B].

    Args:
        student, teacher: logits, [B, K].
        labels: int64 [B], the targets, which take no part.
        costs: C, [K, K].
        options: temperature, epsilon and iterations.
    """
    a, b = (_of_others(precise(logits) / options.temperature, labels) for logits in (student, teacher))
    kernel = (-costs / options.epsilon).exp()
    u = torch.full_like(b, 1 / max(b.shape[1] - 1, 1)).scatter(1, labels[:, None], 0.0)
    v = u
    for _ in range(options.iterations):
        v = b / (u @ kernel + DELTA)
        u = a / (v @ kernel.T + DELTA)
    return (u * (v @ (kernel * costs).T)).sum(1)


def _of_others(logits: Tensor, labels: Tensor) -> Tensor:
    """The softmax over all classes but the target, which has 0."""
    return logits.scatter(1, labels[:, None], -torch.inf).softmax(1)


def target_likelihood(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Compute -p_t,y log p_s,y of every sample, in nats. Logits [B, K] each, labels [B]; returns [B]."""
    at = labels[:, None]
    return -(precise(teacher).softmax(1).gather(1, at) * precise(student).log_softmax(1).gather(1, at)).squeeze(1)


class WKDLogits(SampleObjective):
    """The target's part and the others', a mean over the batch."""

    _means: Tensor

    def __init__(self, options: Options, context: Context) -> None:
        super().__init__()
        self.options, self.context = options, context
        self.of_head = options.cost == "head"
        read = frozenset({"logits", "head" if self.of_head else "embedding"})
        self.needs = Needs(teacher=read, labels=True)
        self.register_buffer("_means", torch.empty(0), persistent=False)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Ask for the means of classes, once, if they say what classes cost."""
        if not self.of_head and not len(self._means):
            assert self.context.class_means is not None
            means = self.context.class_means().to(batch.labels.device)
            self._means = means - means.mean(0)

    def is_prepared(self) -> bool:
        """Return whether means of classes are asked for: the classifier is there."""
        return not self.of_head

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Two terms, `target` and `transport`, weighted."""
        s, t = student.logits, teacher.logits
        rows = self._means
        if self.of_head:
            assert teacher.head is not None
            rows = teacher.head.weight
        with torch.autocast(s.device.type, enabled=False):
            costs = class_costs(rows.to(precise(t).dtype), self.options.sharpen)
            moved = transport_costs(s, t, batch.labels, costs, self.options)
        target = target_likelihood(s, t, batch.labels)
        return {"target": target, "transport": self.options.transport_weight * moved}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and with one class."""
    require_same_classes(student, teacher, key, fewest=2)
    return WKDLogits(options, context)
