"""What is counted of answers, against the metrics, scikit-learn, and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from pipeline.measuring.answers import Answers, calibration, confusions, differing, right_by_class
from pipeline.measuring.metrics import measure


def case(seed: int = 0, count: int = 400, classes: int = 6) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[labels]
    return torch.from_numpy(logits), labels


def answers(logits: torch.Tensor) -> Answers:
    found = Answers.of(logits)
    assert found is not None
    return found


def test_the_bins_give_the_calibration_error_and_the_accuracy_of_the_metrics() -> None:
    logits, labels = case()
    found, metrics = calibration(answers(logits), labels), measure(logits, labels)
    assert found.counts.sum() == len(labels)
    assert np.abs(found.right - found.confidence).sum() / len(labels) == pytest.approx(metrics.ece, rel=1e-12)
    assert found.right.sum() / len(labels) == metrics.top1


def test_classes_and_mistakes_are_those_of_the_confusion_matrix() -> None:
    logits, labels = case()
    said = answers(logits)
    matrix = confusion_matrix(labels, logits.argmax(1).numpy(), labels=np.arange(6))
    np.testing.assert_array_equal(right_by_class(said, labels, 6), np.diag(matrix))
    pairs = confusions(said, labels, 100)
    mistakes = matrix - np.diag(np.diag(matrix))
    assert {(a, b): n for a, b, n in pairs} == {
        (a, b): mistakes[a, b] for a in range(6) for b in range(6) if mistakes[a, b]
    }
    counts = [n for _, _, n in pairs]
    assert counts == sorted(counts, reverse=True)
    assert confusions(said, labels, 3) == pairs[:3]
    assert confusions(answers(torch.eye(3)), np.arange(3), 5) == []


def test_differences_begin_with_those_of_which_both_are_surest() -> None:
    # Both sure of another class; one unsure; the same class; the student less sure than in the first.
    student = torch.tensor([[9.0, 0, 0], [0.1, 0, 0], [9.0, 0, 0], [3.0, 0, 0]])
    teacher = torch.tensor([[0.0, 9, 0], [0, 9.0, 0], [9.0, 0, 0], [0, 0, 9.0]])
    assert differing(answers(student), answers(teacher)).tolist() == [0, 3, 1]


def test_of_equal_logits_the_lowest_class_counts_and_no_classes_say_nothing() -> None:
    found = answers(torch.zeros(2, 4))
    assert found.classes.tolist() == [0, 0]
    assert found.probabilities.tolist() == pytest.approx([0.25, 0.25])
    assert Answers.of(torch.zeros(3, 0)) is None
