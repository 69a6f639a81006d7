"""Keeps what a network says of images, and counts it: by confidence, by class, and by the pair of classes confused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.measuring.metrics import BINS, ROWS_AT_A_TIME, confidence_bins, first_largest


@dataclass(frozen=True)
class Answers:
    """Holds the likeliest class that a network names for N images.

    Args:
        classes: int64 [N].
        probabilities: of these classes, float64 [N].
    """

    classes: NDArray[np.int64]
    probabilities: NDArray[np.float64]

    @classmethod
    def of(cls, logits: Tensor) -> Answers | None:
        """Return what logits [N, K] say; None without classes. Of equal ones the lowest class counts."""
        if not logits.shape[1]:
            return None
        classes, probabilities = [], []
        for start in range(0, len(logits), ROWS_AT_A_TIME):
            z = logits[start : start + ROWS_AT_A_TIME].detach().cpu().double()
            classes.append(first_largest(z))
            probabilities.append(torch.log_softmax(z, dim=1).amax(dim=1).exp())
        return cls(torch.cat(classes).numpy(), torch.cat(probabilities).numpy())


@dataclass(frozen=True)
class Calibration:
    """Holds how often a network is right, by its confidence, in `BINS` bins of equal width.

    Args:
        counts: images of each bin, int64 [BINS].
        confidence: their sum of probabilities, float64 [BINS].
        right: how many of them are classified rightly, int64 [BINS].
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    right: NDArray[np.int64]


def calibration(answers: Answers, labels: NDArray[np.int64]) -> Calibration:
    """Count right answers by confidence. The expected calibration error is the sum of |right - confidence| over N.

    Args:
        answers: of a network.
        labels: of the images, int64 [N].
    """
    bins = confidence_bins(torch.from_numpy(answers.probabilities)).numpy()
    right = (answers.classes == labels).astype(np.float64)
    counts = np.bincount(bins, minlength=BINS).astype(np.int64)
    confidence = np.bincount(bins, answers.probabilities, BINS).astype(np.float64)
    return Calibration(counts, confidence, np.bincount(bins, right, BINS).astype(np.int64))


def right_by_class(answers: Answers, labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Count how many images of every class are classified rightly, int64 [K].

    Args:
        answers: of a network.
        labels: of the images, int64 [N].
        classes: K.
    """
    return np.bincount(labels[answers.classes == labels], minlength=classes).astype(np.int64)


def confusions(answers: Answers, labels: NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """Return the commonest mistakes: label, class that was named instead, and how often; the commonest first.

    Args:
        answers: of a network.
        labels: of the images, int64 [N].
        most: how many pairs.
    """
    wrong = answers.classes != labels
    pairs, counts = np.unique(np.stack([labels[wrong], answers.classes[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return [(int(pairs[i, 0]), int(pairs[i, 1]), int(counts[i])) for i in order]


def differing(answers: Answers, teacher: Answers) -> NDArray[np.int64]:
    """Return the images for which two networks name another class: first those of which both are surest.

    Args:
        answers, teacher: of the networks.
    """
    where = np.flatnonzero(answers.classes != teacher.classes)
    sure = np.minimum(answers.probabilities, teacher.probabilities)[where]
    return where[np.argsort(-sure, kind="stable")]
