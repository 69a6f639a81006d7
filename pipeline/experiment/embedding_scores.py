"""Scores the embeddings of networks on the split that is reported: nearest neighbours, and a linear probe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data import PackedDataset, Samples, select
from pipeline.errors import ConfigError, unknown_name
from pipeline.experiment.data import one_view
from pipeline.experiment.experiment import Experiment, TaughtSections
from pipeline.measuring.neighbours import EmbeddingScores, knn_accuracy
from pipeline.measuring.prediction import predict_signals
from pipeline.models import Network, WithReusedHead
from pipeline.views import Views

EMBEDDED_BATCH = 256
"""Images that are embedded at once."""


@dataclass(frozen=True)
class LabeledBank:
    """Holds labeled images that nearest neighbours and a linear probe learn from.

    samples, views: the images, and the one view that evaluation sees. labels: int64 [M], -1 for those without.
    """

    samples: Samples
    views: Views
    labels: Tensor

    @classmethod
    def of(cls, experiment: Experiment[TaughtSections]) -> LabeledBank | None:
        """Return the bank that the section `evaluate` names, or the images that are learnt from.

        experiment: with its data.

        None if those have no labels. Raises ConfigError for a split that is not there.
        """
        evaluate, dataset = experiment.config.evaluate, experiment.dataset
        if evaluate.labels_from is None:
            samples = select(dataset, experiment.config.data)[0]
        else:
            samples = _named(dataset, evaluate.labels_from)
        if samples.labels is None:
            return None
        return cls(samples, one_view(samples, evaluate.operations), torch.from_numpy(samples.labels))

    def scores(
        self, network: Network | WithReusedHead, embeddings: Tensor, truth: Tensor, device: torch.device
    ) -> EmbeddingScores | None:
        """Return the scores of a network's embeddings; None if it has none of the bank.

        network: lies on `device`, and embeds the bank. embeddings: of the reported images, [N, D]. truth: their labels,
        int64 [N].
        """
        from pipeline.training.linear_probe import probed_classes  # evaluation with classes does without

        bank = predict_signals(network, self.samples, self.views, device=device, batch_size=EMBEDDED_BATCH).embedding
        if bank is None:
            return None
        probe = probed_classes(bank, self.labels, embeddings, device)
        return EmbeddingScores(
            knn=knn_accuracy(embeddings, truth, bank, self.labels),
            probe=float((probe == truth).double().mean()),
            labels_from=self.samples.split.name,
            images=int((self.labels >= 0).sum()),
        )


def _named(dataset: PackedDataset, split: str) -> Samples:
    if split not in dataset.splits:
        raise ConfigError([unknown_name("evaluate.labels_from", split, dataset.splits)])
    return Samples(dataset.split(split))
