"""Scores networks on the holdout while they learn, and when they are done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.data import Samples
from pipeline.experiment.data import Data, one_view
from pipeline.experiment.sections import EvaluateConfig
from pipeline.measuring.metrics import measure
from pipeline.measuring.prediction import predict
from pipeline.models import Network, WithReusedHead
from pipeline.models.device import choose_device, choose_precision
from pipeline.training import TrainConfig
from pipeline.views import Views

SCORING_BATCH = 128
"""Images that are scored at once: at 224 pixels, 500 of them take 7 GB."""


@dataclass(frozen=True)
class Scorer:
    """Scores networks on the holdout, as evaluation sees it.

    samples, labels: N of them; labels int64 [N]. views: the one view that evaluation sees. config: its device and
    precision are those of scoring. teacher: the teacher's logits [N, K] there; None if they are not cached.
    """

    samples: Samples
    labels: Tensor
    views: Views
    config: TrainConfig
    teacher: Tensor | None = None

    @classmethod
    def of(cls, data: Data, evaluate: EvaluateConfig, config: TrainConfig) -> Scorer | None:
        """Return the scorer of a data set's holdout; None without a holdout, or without labels there.

        data: the packed data set. evaluate: the section. config: the settings of the training.
        """
        held = data.holdout
        if held is None or held.labels is None:
            return None
        return cls(held, torch.from_numpy(held.labels), one_view(held, evaluate.operations), config)

    def compared_with(self, teacher: Tensor) -> Scorer:
        """Return a scorer that also compares networks with a teacher. teacher: its logits [N, K]."""
        return replace(self, teacher=teacher)

    def logits(self, network: Network | WithReusedHead) -> Tensor:
        """Run a network on the holdout, and return its logits, float32 [N, K]."""
        device = choose_device(self.config.device)
        precision = choose_precision(self.config.precision, device)
        return predict(network, self.samples, self.views, device=device, precision=precision, batch_size=SCORING_BATCH)

    def top1(self, network: Network | WithReusedHead) -> float:
        """Return the top-1 accuracy of a network, in [0, 1]."""
        return measure(self.logits(network), self.labels).top1

    def identity(self) -> dict[str, Any]:
        """Return what decides the scores of a network, for the identity of a run that they decide about."""
        pixels, labels = self.samples.pixel_digest(), self.samples.labels_digest()
        return {"pixels": pixels, "labels": labels, "operations": self.views.identity()["operations"]}

    def metrics(self, network: Network | WithReusedHead) -> dict[str, Any]:
        """Return all metrics of a network as plain values, with those against the teacher."""
        return measure(self.logits(network), self.labels, self.teacher).to_json()
