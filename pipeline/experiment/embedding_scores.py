"""Scores the embeddings of networks on the split that is reported: nearest neighbours, and a linear probe."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data import PackedDataset, Samples, Split, select
from pipeline.errors import ConfigError, Problem, unknown_name
from pipeline.experiment.data import one_view
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.section_sets import TaughtSections
from pipeline.measuring.measured import EmbeddingScores
from pipeline.measuring.neighbours import knn_accuracy
from pipeline.measuring.prediction import predict_signals
from pipeline.models import Network, WithReusedHead
from pipeline.views import Views

EMBEDDED_BATCH = 256
"""Images that are embedded at once."""


@dataclass(frozen=True)
class LabeledBank:
    """Holds labeled images that nearest neighbours and a linear probe learn from.

    Args:
        samples, views: the images, and the one view that evaluation sees.
        labels: int64 [M], -1 for those without.
    """

    samples: Samples
    views: Views
    labels: Tensor

    @classmethod
    def of(cls, experiment: Experiment[TaughtSections]) -> LabeledBank | None:
        """Return the bank that the section `evaluate` names, or the images that are learnt from.

        Args:
            experiment: with its data.

        None if those have no labels, or are the reported images themselves. Raises ConfigError for a split that is not
        there, or that has no labels.
        """
        evaluate, dataset = experiment.config.evaluate, experiment.dataset
        if evaluate.labels_from is None:
            samples = select(dataset, experiment.config.data)[0]
        else:
            samples = Samples(labeled_split(dataset, evaluate.labels_from))
        if samples.labels is None or samples.split.name == evaluate.split:
            return None
        return cls(samples, one_view(samples, evaluate.operations), torch.from_numpy(samples.labels))

    def scores(
        self, network: Network | WithReusedHead, embeddings: Tensor, truth: Tensor, device: torch.device
    ) -> EmbeddingScores | None:
        """Return the scores of a network's embeddings; None if it has none of the bank.

        Args:
            network: lies on `device`, and embeds the bank.
            embeddings: of the reported images, [N, D].
            truth: their labels, int64 [N].
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


def labeled_split(dataset: PackedDataset, name: str) -> Split:
    """Return the split that neighbours and probe learn from. Raises ConfigError if it is not there, or has no labels.

    Args:
        dataset: has the splits.
        name: as `evaluate.labels_from` has it.
    """
    key = "evaluate.labels_from"
    if name not in dataset.splits:
        raise ConfigError([unknown_name(key, name, dataset.splits)])
    split = dataset.split(name)
    if split.labels is None or not (split.labels[:] >= 0).any():
        fix = "name a split that has some, or leave it out"
        raise ConfigError([Problem(key, "none of the images of this split has a label", got=name, fix=fix)])
    return split
