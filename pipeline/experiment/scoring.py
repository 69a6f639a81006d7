"""Scores networks on the holdout while they learn, and when they are done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.data import Samples
from pipeline.experiment.data import Data, one_view
from pipeline.experiment.sections import EvaluateConfig
from pipeline.measuring.metrics import measure_signals
from pipeline.measuring.prediction import predict_signals
from pipeline.measuring.score import AGREEMENT, TOP1, Score
from pipeline.models import Network, WithReusedHead
from pipeline.models.device import choose_device, choose_precision
from pipeline.signals import Signals
from pipeline.training import TrainConfig
from pipeline.views import Views

SCORING_BATCH = 128
"""Images that are scored at once: at 224 pixels, 500 of them take 7 GB."""


@dataclass(frozen=True)
class Scorer:
    """Scores networks on the holdout, as evaluation sees it.

    Args:
        samples, labels: N of them; labels int64 [N], None if there are none.
        views: the one view that evaluation sees.
        config: its device and precision are those of scoring.
        teacher: the teacher's signals there; None if they are not cached.
        score: what networks are ranked by.
    """

    samples: Samples
    labels: Tensor | None
    views: Views
    config: TrainConfig
    teacher: Signals | None = None
    score: Score = TOP1

    @classmethod
    def of(cls, data: Data, evaluate: EvaluateConfig, config: TrainConfig) -> Scorer | None:
        """Return the scorer of a data set's holdout; None without a holdout.

        Args:
            data: the packed data set.
            evaluate: the section.
            config: the settings of the training.
        """
        held = data.holdout
        if held is None:
            return None
        labeled = held.labels is not None and bool((held.labels >= 0).all())
        labels = torch.from_numpy(held.labels) if labeled else None
        return cls(held, labels, one_view(held, evaluate.operations), config)

    def compared_with(self, teacher: Signals) -> Scorer:
        """Return a scorer that also compares networks with a teacher.

        Args:
            teacher: its signals of the holdout.
        """
        return replace(self, teacher=teacher)

    def headless(self) -> Scorer | None:
        """Return a scorer that ranks by agreement: for networks without a classifier, or images without labels.

        None without a teacher.
        """
        return replace(self, score=AGREEMENT) if self.teacher is not None else None

    def signals(self, network: Network | WithReusedHead, *, embeddings: bool) -> Signals:
        """Run a network on the holdout, and return its logits [N, K], and its embeddings if they are wanted."""
        device = choose_device(self.config.device)
        precision = choose_precision(self.config.precision, device)
        return predict_signals(
            network,
            self.samples,
            self.views,
            device=device,
            precision=precision,
            batch_size=SCORING_BATCH,
            embeddings=embeddings,
        )

    def value(self, network: Network | WithReusedHead) -> float:
        """Return the score of a network, in [0, 1]."""
        teacher = self.teacher if self.score is AGREEMENT else None
        metrics = measure_signals(self.signals(network, embeddings=teacher is not None), self.labels, teacher)
        found: float = getattr(metrics, self.score.name)
        return found

    def identity(self) -> dict[str, Any]:
        """Return what decides the scores of a network, for the identity of a run that they decide about."""
        pixels, labels = self.samples.pixel_digest(), self.samples.labels_digest()
        ranked = {} if self.score is TOP1 else {"score": self.score.name}
        return {"pixels": pixels, "labels": labels, "operations": self.views.identity()["operations"], **ranked}

    def metrics(self, network: Network | WithReusedHead) -> dict[str, Any]:
        """Return all metrics of a network as plain values, with those against the teacher."""
        embeddings = self.teacher is not None and (self.score is AGREEMENT or not self.teacher.logits.shape[1])
        return measure_signals(self.signals(network, embeddings=embeddings), self.labels, self.teacher).to_json()
