"""OFA: the student's blocks get exits of their own, and all of them learn from the teacher's probabilities alone.

Hao, Guo, Han, Tang, Hu, Wang and Xu, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
Distillation", NeurIPS 2023, arXiv 2310.19444. With p = softmax(t / T) of the teacher, q = softmax(z / T) of an exit, y
the target and ε >= 1, as in the authors' code:

    ℓ(z) = -(1/B) Σ_b Σ_c [ (p_c + 1[c=y])^ε - 1[c=y] ] log q_c,   L = ℓ(z_s) + Σ_k ℓ(z^k)

z_s are the student's logits and z^k those of an exit on block k: no feature of the teacher is read, so networks of any
kinds go together. With ε = 1 this is cross-entropy with the teacher's probabilities, and no label is read; a larger ε
enhances the target, the more the surer the teacher is. It is 0 nowhere: at student = teacher and ε = 1 it is the
teacher's entropy. There is no factor T². Weight 1 beside hard labels with weight 1; ε = 1 for CIFAR-100 (Swin-T to
ResNet-18), 1.5 for ImageNet (DeiT-T to ResNet-18).

Exits on convolutional blocks are the paper's (`_exits`): separable convolutions that halve the map for every block
that follows; their width is the larger one of both networks' embeddings, or the student's where the cache has none
of the teacher. Deviations: blocks of token networks (ViT, mixer) have, instead of merged patches and transformer
blocks, one layer for each token before the mean; the code can have another ε for every exit, here all have one.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ConfigError, unknown_name
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.exits import exits
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.objectives.sample_objective import SampleObjective
from pipeline.signals import Signals, SignalShapes

READS = ("logits",)


class Options(Section):
    """epsilon: ε >= 1. temperature: T > 0. blocks: the student's blocks with exits, default all, [] for none."""

    epsilon: float = Field(1.0, ge=1)
    temperature: float = Field(1.0, gt=0)
    blocks: tuple[str, ...] | None = None


def enhanced(student: Tensor, teacher: Tensor, labels: Tensor, epsilon: float, temperature: float) -> Tensor:
    """ℓ of every sample, in nats. Logits [B, K] each, labels [B], not read if epsilon is 1; returns [B]."""
    target = (precise(teacher) / temperature).softmax(1)
    if epsilon != 1:
        hard = torch.nn.functional.one_hot(labels, target.shape[1]).to(target.dtype)
        target = (target + hard) ** epsilon - hard
    return -(target * (precise(student) / temperature).log_softmax(1)).sum(1)


class OFA(SampleObjective):
    """The loss of the student's logits and those of its exits."""

    def __init__(self, exits: nn.ModuleDict, options: Options) -> None:
        super().__init__()
        self.epsilon, self.temperature = options.epsilon, options.temperature
        self.exits = exits
        self.needs = Needs(
            teacher=frozenset({"logits"}),
            student=frozenset({"logits", *(f"features/{block}" for block in exits)}),
            labels=options.epsilon != 1,
        )

    def of_samples(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Term `logits`, and `exits`, the sum over them, if there are any."""

        def loss(logits: Tensor) -> Tensor:
            return enhanced(logits, teacher.logits, batch.labels, self.epsilon, self.temperature)

        terms = {"logits": loss(student.logits)}
        if self.exits:
            losses = [loss(classify(student.features[block])) for block, classify in self.exits.items()]
            terms["exits"] = torch.stack(losses).sum(0)
        return terms


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and blocks that the student does not have."""
    require_same_classes(student, teacher, key)
    own = {name: shape for name, shape in student.features.items() if name.startswith("block")}
    blocks = tuple(own) if options.blocks is None else options.blocks
    if unknown := [name for name in blocks if name not in own]:
        raise ConfigError([unknown_name(f"{key}.blocks", name, own) for name in unknown])
    deepest = list(own.values())[-1:]
    widths = [student.embedding or 0, teacher.embedding or 0, *(channels for channels, _, _ in deepest)]
    return OFA(exits(own, blocks, max(widths), student.logits), options)
