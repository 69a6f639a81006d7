from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score, log_loss, top_k_accuracy_score

from pipeline.errors import DataError, ModelError
from pipeline.measuring.measured import Metrics
from pipeline.measuring.metrics import measure

Case = tuple[torch.Tensor, NDArray[np.int64], torch.Tensor]


def case(count: int = 500, classes: int = 20, seed: int = 0) -> Case:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 2 * np.eye(classes)[labels]
    teacher = rng.normal(size=(count, classes)) + 3 * np.eye(classes)[labels]
    return torch.from_numpy(logits), labels, torch.from_numpy(teacher)


def softmax(z: torch.Tensor) -> NDArray[np.float64]:
    e = np.exp(z.double().numpy())
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def test_agrees_with_scikit_learn() -> None:
    logits, labels, _ = case()
    got = measure(logits, labels)
    names = np.arange(20)
    assert got.top1 == accuracy_score(labels, logits.numpy().argmax(axis=1))
    assert got.top5 == top_k_accuracy_score(labels, logits.numpy(), k=5, labels=names)
    assert got.nll == pytest.approx(log_loss(labels, softmax(logits), labels=names), rel=1e-12)
    assert got.count == 500


def test_fidelity_is_that_of_the_definition() -> None:
    logits, labels, teacher = case()
    p, q = softmax(teacher), softmax(logits)
    got = measure(logits, labels, teacher)
    assert got.kl == pytest.approx((p * np.log(p / q)).sum(axis=1).mean(), rel=1e-10)
    assert got.agreement == (p.argmax(axis=1) == q.argmax(axis=1)).mean()


def test_a_copy_of_the_teacher_is_faithful() -> None:
    logits, labels, _ = case()
    got = measure(logits, labels, logits + 3.0)
    assert got.agreement == 1.0
    assert got.kl == pytest.approx(0.0, abs=1e-12)


def test_no_teacher_no_fidelity() -> None:
    logits, labels, _ = case()
    got = measure(logits, labels)
    assert got.agreement is None
    assert got.kl is None


def test_calibration_error_worked_by_hand() -> None:
    # Confidences 0.9, 0.9 (both right) and 0.55, 0.55 (one right): |2 - 1.8| + |1 - 1.1| = 0.3 over 4 images.
    confidence = torch.tensor([0.9, 0.9, 0.55, 0.55], dtype=torch.float64)
    logits = torch.stack([confidence, 1 - confidence], dim=1).log()
    assert measure(logits, np.array([0, 0, 0, 1])).ece == pytest.approx(0.3 / 4, abs=1e-12)


def test_calibration_error_with_numpy_bins() -> None:
    logits, labels, _ = case(3000)
    p = softmax(logits)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    bins = np.digitize(confidence, np.linspace(0, 1, 16), right=True)
    expected = sum(
        (bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean()) for b in np.unique(bins)
    )
    assert measure(logits, labels).ece == pytest.approx(expected, rel=1e-9)


def test_certainty_is_the_last_bin() -> None:
    logits = torch.tensor([[1e4, 0.0], [1e4, 0.0]])
    got = measure(logits, np.array([0, 1]), logits)
    assert got.ece == pytest.approx(0.5)
    assert got.nll == pytest.approx(5e3)
    assert got.kl == 0.0


@pytest.mark.parametrize("classes", [2, 5])
def test_top5_of_few_classes_is_one(classes: int) -> None:
    logits, labels, _ = case(50, classes)
    assert measure(logits, labels).top5 == 1.0


def test_a_network_that_cannot_decide_earns_nothing() -> None:
    logits = torch.zeros(100, 10)
    got = measure(logits, np.arange(100) % 10, torch.zeros(100, 10))
    assert (got.top1, got.top5, got.agreement) == (0.1, 0.5, 1.0)
    assert got.nll == pytest.approx(math.log(10))


def test_many_images_are_the_mean_of_their_parts() -> None:
    logits, labels, teacher = case(9000, 7)
    whole = measure(logits, labels, teacher)
    parts = [measure(logits[i : i + 3000], labels[i : i + 3000], teacher[i : i + 3000]) for i in (0, 3000, 6000)]
    for name in ("top1", "top5", "nll", "agreement", "kl"):
        assert getattr(whole, name) == pytest.approx(np.mean([getattr(part, name) for part in parts]), rel=1e-12)


def test_order_of_images_does_not_matter() -> None:
    logits, labels, teacher = case(5000, 7)
    order = np.random.default_rng(1).permutation(5000)
    a, b = measure(logits, labels, teacher), measure(logits[order], labels[order], teacher[order])
    assert (a.nll, a.kl, a.top1) == (b.nll, b.kl, b.top1)
    assert a.ece == pytest.approx(b.ece, rel=1e-12)


def test_half_precision_is_computed_in_float64() -> None:
    logits, labels, teacher = case()
    half, half_teacher = logits.half(), teacher.bfloat16()
    assert measure(half, labels, half_teacher) == measure(half.double(), labels, half_teacher.double())


def test_labels_as_tensor_and_gradients_are_fine() -> None:
    logits, labels, _ = case()
    assert measure(logits.requires_grad_(), torch.from_numpy(labels)) == measure(logits.detach(), labels)


@pytest.mark.parametrize("bad", [-1, 20])
def test_labels_out_of_range(bad: int) -> None:
    logits, labels, _ = case()
    labels[3] = bad
    with pytest.raises(DataError, match="outside the network's classes"):
        measure(logits, labels)


def test_shapes_that_do_not_fit() -> None:
    logits, labels, teacher = case()
    with pytest.raises(DataError, match="differ in number"):
        measure(logits, labels[:-1])
    with pytest.raises(DataError, match="do not belong"):
        measure(logits, labels, teacher[:, :-1])
    with pytest.raises(DataError, match="nothing to measure"):
        measure(logits[:0], labels[:0])


def test_logits_that_are_not_finite() -> None:
    logits, labels, teacher = case()
    teacher[7, 2] = torch.nan
    with pytest.raises(ModelError, match=r"the teacher's logits are not finite\n  got: 1 of 500"):
        measure(logits, labels, teacher)
    logits[:2] = torch.inf
    with pytest.raises(ModelError, match="2 of 500"):
        measure(logits, labels)


def test_json_holds_every_field() -> None:
    logits, labels, teacher = case()
    metrics = measure(logits, labels, teacher)
    assert Metrics(**json.loads(json.dumps(metrics.to_json()))) == metrics
