"""MLLD: predictions are matched sample by sample, sample against sample, and class against class.

Jin, Wang and Lin, "Multi-Level Logit Distillation", CVPR 2023. Several views of every sample are in a batch; those of
one kind are P = softmax(z / T), [B, K]. For every temperature T and every view:

    instance = T² · (1/B) Σ_b KL(P_t[b] ‖ P_s[b]),   batch = (1/B) ‖P_t P_tᵀ - P_s P_sᵀ‖²_F,
                                                     class = (1/K) ‖P_tᵀ P_t - P_sᵀ P_s‖²_F
    L = Σ_T mean over views of (instance + batch + class)

The temperatures are the code's: 4, 3, 5, 2, 6. What is matched is the view that teacher and student both saw, so the
term is exact from a cache that holds these views; the authors' are a weak one (crop and flip) and a strong one
(RandAugment). It needs adjacent rows of the same sample: `train.views_per_step: 2`. Sums over samples and classes
inside the Gram matrices make batch and class levels depend on the batch size.

This is what the levels say, not all of what the authors' code computes: there the instance level is reduced to a
number before a mask of the less confident samples is applied, which makes the mask a factor of about one half, masks of
the Gram matrices likewise; two temperatures of the strong view read the weak one's logits; and batch and class levels
of the strong view are left out of the sum. Here nothing is masked and no view is left out. The mean over views, where
the code has a sum, leaves the recipe's ratio as it is: weight 0.9 beside hard labels with 0.1. Its published runs are
said to have 480 epochs: not comparable with 240.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Section
from pipeline.errors import TrainingError
from pipeline.objectives.base import Batch, Context, Needs, Objective
from pipeline.objectives.divergence import kl_divergence
from pipeline.objectives.precision import precise
from pipeline.objectives.requirements import require_same_classes
from pipeline.signals import Signals, SignalShapes

READS = ("logits", "2 views of each sample")


class Options(Section):
    """temperatures: every T > 0; all are used, and their losses added."""

    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field((2.0, 3.0, 4.0, 5.0, 6.0), min_length=1)


def levels(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """The losses of instances (nats, times T²), batch and classes: means over V views. Logits [V, B, K] each."""
    instance = kl_divergence(student, teacher, temperature).mean()
    s, t = ((precise(logits) / temperature).softmax(2) for logits in (student, teacher))
    # With D = P_t - P_s and A = (P_t + P_s) / 2, the matrices to be squared are DAᵀ + ADᵀ and DᵀA + AᵀD: nothing is
    # lost where both networks agree, and the second, [K, K], follows from products of samples, [B, B].
    apart, middle = t - s, (t + s) / 2
    with torch.autocast(s.device.type, enabled=False):
        mixed = apart @ middle.transpose(1, 2)
        products = (apart @ apart.transpose(1, 2)) * (middle @ middle.transpose(1, 2))
    turned = mixed.transpose(1, 2)
    between_samples = (mixed + turned).square().sum((1, 2))
    between_classes = 2 * (products + mixed * turned).sum((1, 2))
    _, batch, classes = student.shape
    return instance, between_samples.mean() / batch, between_classes.mean() / classes


class MLLD(Objective):
    """The sum of all levels over all temperatures."""

    needs = Needs(teacher=frozenset({"logits"}), views=2)

    def __init__(self, views: int, options: Options) -> None:
        super().__init__()
        self.views, self.temperatures, self._looked = views, options.temperatures, False

    def prepare(self, batch: Batch, progress: float) -> None:
        """Look whether the batch has the views of its samples; raises TrainingError if not.

        Of batches on a device only the first is looked at.
        """
        if not self._looked or batch.sample.device.type == "cpu":
            self._refuse_others(batch.on_cpu().sample)
            self._looked = True

    def forward(self, student: Signals, teacher: Signals, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Terms `instance`, `batch` and `class`."""
        s, t = (self._by_view(signals.logits) for signals in (student, teacher))
        every = [torch.stack(levels(s, t, temperature)) for temperature in self.temperatures]
        return dict(zip(("instance", "batch", "class"), torch.stack(every).sum(0).unbind(), strict=True))

    def _by_view(self, logits: Tensor) -> Tensor:
        return logits.reshape(-1, self.views, logits.shape[1]).transpose(0, 1)

    def _refuse_others(self, sample: Tensor) -> None:
        if len(sample) % self.views or bool((sample.view(-1, self.views) != sample[:: self.views, None]).any()):
            raise TrainingError(
                "mlld needs several views of every sample in a batch, in adjacent rows",
                expected=f"{self.views} rows for each sample",
                got=f"{len(sample)} rows of {len(torch.unique(sample))} samples",
                fix=f"set `train.views_per_step: {self.views}`",
            )


def build(options: Options, student: SignalShapes, teacher: SignalShapes, context: Context, key: str) -> Objective:
    """Refuses networks with different classes, and batches with one view of each sample."""
    require_same_classes(student, teacher, key)
    return MLLD(max(context.views_per_step, MLLD.needs.views), options)
