"""Angular-KD: several heads on the teacher's embedding, far apart in angle, whose common opinion the student learns.

Yu, Nam, Katabi and Son, "Single-Teacher View Augmentation: Boosting Knowledge Distillation via Angular Diversity",
NeurIPS 2025, arXiv 2510.22480, after the authors' code (june6423/Angular-KD). Each of N heads turns the teacher's
embedding f and classifies it:

    x_i = norm_i(G_i f),   z_i = C_i x_i + c_i,   p = ( softmax(t / T) + ω Σ_i softmax(z_i / T) ) / (1 + ω N)
    L = T² (1/B) Σ_b KL( p(b) ‖ softmax(z_s(b) / T) )

t are the teacher's logits, norm_i is a batch normalisation, G_i begins as an orthogonal matrix. The heads learn

    ω Σ_i cross-entropy(z_i, y) + 0.1 inter(x, f) + intra(x, f) + inter(P, softmax(t / T)) + intra(P, softmax(t / T))

with P_i = softmax(z_i / T), and with dropout of f. `intra` has what leads from the teacher's vector to those of the
heads point apart: the mean over i ≠ j of softplus( mean over b of cos(t - v_i, t - v_j) ). `inter` holds each head near
the teacher: InfoNCE at 0.07 of v_i(b) among the teacher's vectors of the batch, divided by N, where an own score of 0.8
or more counts as 1; and, for samples of which all heads are so near, the mean of softplus( <v_i, v_j> ) over i ≠ j.
N = 5, T = 4 and ω = 0.8 are the code's, beside hard labels. It divides by √(1 + ω² N), not by 1 + ω N, so that its p
adds up to 2.44: the gradient of `weight: 2.44` here. The paper also has the heads' mean embedding as the target of CRD,
which is not served. Published: 76.08 for ResNet-32x4 to ResNet-8x4.

Exact from a cache, with these deviations. The authors' heads learn 30 epochs before the student, then with it, and its
loss flows into them, too. Here they learn for `epochs` epochs from the cache before the student's first step, by Adam
at a learning rate of 0.003 in batches of 128, from at most 20,000 samples in the view of that step. Then they stay:
without dropout a head is linear in f, so what is kept of it, and saved with the student, is one matrix. A head's
normalisation begins with scales 1 and shifts 0; in the code with a number for both, drawn about 1 to 0.6. The code
normalises features over heads, not channels, where it compares heads; here each is a direction. Probabilities are
compared by inner products, as there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes, teacher_embedding
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.progress import doing
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.unit import unit

READS = ("embedding", "logits", "labels")

NEAR = 0.8
"""1 - the code's margin: a head whose score is no less is near enough to the teacher."""

CONTRAST_TEMPERATURE, FEATURE_INTER_WEIGHT = 0.07, 0.1
"""The code's, of the contrast in `inter`, and of `inter` of features."""

MOST_SAMPLES, BATCH, LEARNING_RATE, READ_AT_ONCE = 20_000, 128, 3e-3, 4096
"""Of the training of heads: ours. What is read of the cache is kept in memory: 160 MB for embeddings of 2,048."""

EPSILON = 1e-5
"""Of the normalisation, as torch has it."""


class Options(Section):
    """heads: N. temperature: T > 0. head_weight: ω, what a head counts beside the teacher. epochs: of their training.

    dropout: of the first head and of the last, those between in equal steps.
    """

    heads: int = Field(5, ge=2)
    temperature: float = Field(4.0, gt=0)
    head_weight: float = Field(0.8, ge=0)
    epochs: int = Field(5, gt=0)
    dropout: tuple[float, float] = (0.15, 0.35)


def ensemble_divergence(student: Tensor, teacher: Tensor, heads: Tensor, weight: float, temperature: float) -> Tensor:
    """L of every sample, in nats: logits [B, K] of both networks and [N, B, K] of the heads; returns [B]."""
    logits = torch.cat((precise(teacher)[None], precise(heads)))
    shares = logits.new_full((len(logits), 1, 1), weight)
    shares[0] = 1
    p = ((logits / temperature).softmax(2) * (shares / shares.sum())).sum(0)
    return (torch.xlogy(p, p) - p * (precise(student) / temperature).log_softmax(1)).sum(1) * temperature**2


def angular_losses(
    views: Sequence[Tensor], teacher: Sequence[Tensor], compared: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """`inter` and `intra` of S spaces, [S] each.

    views, teacher: vectors [N, B, D_s] of the heads and [B, D_s]. compared: of each space those of the heads and of
    the teacher as `inter` compares them.
    """
    away = [unit(t - v, 2) for v, t in zip(views, teacher, strict=True)]
    intra = torch.stack([torch.einsum("nbd,mbd->nm", each, each) for each in away])[:, None] / len(teacher[0])
    of_heads, of_teacher = compared[::2], compared[1::2]
    scores = torch.stack([v @ t.T for v, t in zip(of_heads, of_teacher, strict=True)])  # [S, N, B, B]
    own = scores.diagonal(dim1=2, dim2=3)
    held = torch.where(own >= NEAR, 1.0, own)
    scores = torch.diagonal_scatter(scores, held, dim1=2, dim2=3) / CONTRAST_TEMPERATURE
    contrast = (scores.logsumexp(3) - held / CONTRAST_TEMPERATURE).mean((1, 2)) / own.shape[1]
    near = (own > NEAR).all(1)
    alike = torch.stack([torch.einsum("nbd,mbd->bnm", v, v) for v in of_heads])
    return contrast + (_between(alike) * near).mean(1), _between(intra).squeeze(1)


def _between(grams: Tensor) -> Tensor:
    """The mean of softplus over [..., N, N] off the diagonal."""
    count = grams.shape[-1]
    off = 1 - torch.eye(count, device=grams.device)
    return (F.softplus(grams) * off).sum((-2, -1)) / (count * (count - 1))


class _Heads:
    """The heads in training. width: D."""

    def __init__(self, options: Options, width: int, classes: int, seed: int, device: torch.device) -> None:
        self.options, self.draw = options, torch.Generator().manual_seed(seed)
        turns, _ = torch.linalg.qr(self._normal(options.heads, width, width))
        bound = math.sqrt(6 / (width + classes))  # Glorot's, as in the code
        of_classes = (2 * self._uniform(options.heads, classes, width) - 1) * bound
        first, last = options.dropout
        rates = torch.linspace(first, last, options.heads)[:, None, None]
        self.rates = rates.to(device)
        self.turns, self.weights = (x.to(device).requires_grad_() for x in (turns, of_classes))
        self.scales = torch.ones(options.heads, 1, width, device=device, requires_grad=True)
        self.shifts = torch.zeros(options.heads, 1, width, device=device, requires_grad=True)
        self.biases = torch.zeros(options.heads, 1, classes, device=device, requires_grad=True)
        self.learned = [self.turns, self.scales, self.shifts, self.weights, self.biases]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draw)

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.draw)

    def loss(self, embedding: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """What the heads learn, of a batch [B, D], [B, K], [B]."""
        options, temperature = self.options, self.options.temperature
        kept = self._uniform(options.heads, *embedding.shape).to(embedding.device) >= self.rates
        turned = (embedding * kept / (1 - self.rates)) @ self.turns.transpose(1, 2)
        variance, mean = torch.var_mean(turned, 1, correction=0, keepdim=True)
        views = (turned - mean) * (variance + EPSILON).rsqrt() * self.scales + self.shifts
        said = views @ self.weights.transpose(1, 2) + self.biases
        p, q = (said / temperature).softmax(2), (logits / temperature).softmax(1)
        told = F.cross_entropy(said.flatten(0, 1), labels.repeat(options.heads)) * options.heads
        compared = unit(views, 2), unit(embedding, 1), p, q
        (of_features, of_logits), intra = angular_losses((views, p), (embedding, q), compared)
        loss: Tensor = options.head_weight * told + FEATURE_INTER_WEIGHT * of_features + of_logits + intra.sum()
        return loss

    def learn(self, embedding: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Learn from all rows, `epochs` times."""
        optimizer = torch.optim.Adam(self.learned, lr=LEARNING_RATE)
        parts = -(-len(labels) // BATCH)
        for _ in range(self.options.epochs):
            order = torch.randperm(len(labels), generator=self.draw).to(labels.device)
            for rows in order.chunk(parts):
                optimizer.zero_grad()
                self.loss(embedding[rows], logits[rows], labels[rows]).backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    @torch.no_grad()
    def as_linear(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Weights [N, K, D] and biases [N, K] of the heads, normalised by the statistics of all rows."""
        turned = embedding @ self.turns.transpose(1, 2)
        variance, mean = torch.var_mean(turned, 1, correction=0, keepdim=True)
        scales = self.scales * (variance + EPSILON).rsqrt()
        weights = self.weights @ (self.turns * scales.transpose(1, 2))
        shifts = self.shifts - mean * scales
        return weights, (shifts @ self.weights.transpose(1, 2) + self.biases).squeeze(1)


class Angular(SampleObjective):
    """The divergence from what teacher and heads say together."""

    weights: Tensor
    biases: Tensor
    trained: Tensor

    def __init__(self, width: int, classes: int, context: Context, options: Options) -> None:
        super().__init__()
        self.context, self.options, self._known = context, options, False
        self.register_buffer("weights", torch.zeros(options.heads, classes, width))
        self.register_buffer("biases", torch.zeros(options.heads, classes))
        self.register_buffer("trained", torch.zeros((), dtype=torch.bool))
        self.needs = Needs(teacher=frozenset({"embedding", "logits"}), labels=True)

    def prepare(self, batch: Batch, progress: float) -> None:
        """Train the heads, before the first step of all."""
        self._known = self._known or bool(self.trained)
        if not self._known:
            with doing("training the heads of angular", 0.0):
                self._train(int(batch.on_cpu().view.min()))
            self._known = True

    def _train(self, view: int) -> None:
        context, device = self.context, self.weights.device
        assert context.bank is not None
        assert context.labels is not None
        chosen = torch.randperm(context.num_samples, generator=torch.Generator().manual_seed(context.seed))
        samples = chosen[:MOST_SAMPLES]
        parts = [samples[start : start + READ_AT_ONCE] for start in range(0, len(samples), READ_AT_ONCE)]
        embedding, logits = (
            torch.cat([context.bank(signal, part, view) for part in parts]).float().to(device)
            for signal in ("embedding", "logits")
        )
        labels = torch.as_tensor(context.labels)[samples].to(device)
        with torch.enable_grad(), torch.autocast(device.type, enabled=False):
            heads = _Heads(self.options, embedding.shape[1], logits.shape[1], context.seed, device)
            heads.learn(embedding, logits, labels)
            weights, biases = heads.as_linear(embedding)
        self.weights.copy_(weights)
        self.biases.copy_(biases)
        self.trained.fill_(True)

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One term, `ensemble`."""
        assert teacher.embedding is not None
        with torch.autocast(teacher.embedding.device.type, enabled=False):
            embedding = teacher.embedding.to(self.weights.dtype)
            said = embedding @ self.weights.transpose(1, 2) + self.biases[:, None]
        weight, temperature = self.options.head_weight, self.options.temperature
        return {"ensemble": ensemble_divergence(student.logits, teacher.logits, said, weight, temperature)}


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and teachers without an embedding."""
    require_same_classes(student, teacher, key)
    return Angular(teacher_embedding(teacher, key), teacher.classes, context, options)
