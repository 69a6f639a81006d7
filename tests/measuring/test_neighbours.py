"""kNN and common neighbours against scikit-learn, and worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from pipeline.errors import DataError, ModelError
from pipeline.measuring.metrics import measure, measure_signals
from pipeline.measuring.neighbours import common_neighbours, knn_accuracy, knn_classes
from pipeline.signals import Signals

GENERATOR = torch.Generator().manual_seed(0)


def random(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=GENERATOR)


def test_votes_are_those_of_sklearn_with_dino_weights():
    bank, labels, queries = random(300, 16), torch.arange(300) % 7, random(80, 16)
    vote = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07))
    vote.fit(bank.double().numpy(), labels.numpy())
    assert knn_classes(queries, bank, labels).tolist() == vote.predict(queries.double().numpy()).tolist()


def test_two_near_votes_beat_three_far_ones():
    """Class 0 has cosines 1 and 1, class 1 three times 0: 2 exp(1/0.07) against 3."""
    bank = torch.tensor([[1.0, 0], [2, 0], [0, 1], [0, 1], [0, 3]])
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert knn_classes(torch.tensor([[5.0, 0]]), bank, labels).tolist() == [0]
    assert knn_classes(torch.tensor([[5.0, 0]]), bank, labels, temperature=1e6).tolist() == [1]
    assert knn_classes(torch.tensor([[0, 5.0]]), bank, labels, neighbours=1).tolist() == [1]


def test_samples_without_labels_have_no_vote():
    bank, labels = torch.tensor([[1.0, 0], [1, 0.1], [0, 1]]), torch.tensor([-1, -1, 2])
    assert knn_classes(torch.tensor([[1.0, 0]]), bank, labels).tolist() == [2]
    assert knn_accuracy(torch.eye(2), torch.tensor([2, 1]), bank, labels) == 0.5
    with pytest.raises(DataError, match="without labels"):
        knn_classes(torch.eye(2), bank[:2], labels[:2])


def test_common_neighbours_are_those_of_sklearn():
    one, other = random(60, 8), random(60, 5)
    found = [
        NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(x).kneighbors(return_distance=False)
        for x in (one.double().numpy(), other.double().numpy())
    ]
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(*found, strict=True)]
    assert common_neighbours(one, other) == pytest.approx(float(np.mean(shares)))


def test_agreement_knows_no_coordinates():
    one = random(40, 6)
    turned = 3 * one @ torch.linalg.qr(random(9, 6)).Q.T
    assert common_neighbours(one, turned) == 1.0
    few = torch.randn(8, 5, generator=GENERATOR), torch.randn(8, 5, generator=GENERATOR)
    assert 0 < common_neighbours(*few) < 1  # three of the seven others: of all seven, any two have all in common
    assert common_neighbours(one, one[torch.randperm(40, generator=GENERATOR)]) < 0.6
    with pytest.raises(DataError):
        common_neighbours(one, one[:30])


def test_networks_with_logits_are_compared_by_them_and_others_by_embeddings():
    labels, logits, theirs = np.arange(30) % 4, random(30, 4), random(30, 4)
    own = Signals(logits, random(30, 6))
    assert measure_signals(own, labels, Signals(theirs, random(30, 9))) == measure(logits, labels, theirs)
    assert measure_signals(own, labels, None) == measure(logits, labels)
    headless = Signals(logits[:, :0], random(30, 9))
    assert own.embedding is not None
    assert headless.embedding is not None
    beside = measure_signals(own, labels, headless)
    assert (beside.top1, beside.kl) == (measure(logits, labels).top1, None)
    assert beside.agreement == common_neighbours(own.embedding, headless.embedding)
    alone = measure_signals(headless, labels, Signals(theirs))
    assert (alone.top1, alone.nll, alone.count) == (None, None, 30)
    assert alone.agreement == common_neighbours(headless.embedding, theirs)


def test_large_banks_are_looked_through_in_parts(monkeypatch: pytest.MonkeyPatch):
    bank, labels, queries = random(50, 8), torch.arange(50) % 3, random(20, 8)
    whole, common = knn_classes(queries, bank, labels), common_neighbours(bank, bank[:, :5])
    monkeypatch.setattr("pipeline.measuring.neighbours.COSINES_AT_A_TIME", 120)  # of two images
    assert torch.equal(knn_classes(queries, bank, labels), whole)
    assert common_neighbours(bank, bank[:, :5]) == common


def test_embeddings_that_are_not_finite_have_no_neighbours():
    broken = random(12, 4)
    broken[3, 1] = torch.nan
    for call in (
        lambda: knn_classes(broken, random(5, 4), torch.zeros(5, dtype=torch.int64)),
        lambda: common_neighbours(random(12, 4), broken),
    ):
        with pytest.raises(ModelError, match=r"(?s)not finite.*1 of 12 images"):
            call()
