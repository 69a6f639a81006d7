"""Measures accuracy, calibration and fidelity from logits; of networks without logits, fidelity from embeddings.

Calibration: Guo et al., arXiv 1706.04599, equation 3, with 15 equal-width bins of the confidence.
Fidelity: Stanton et al., arXiv 2106.05945: top-1 agreement and predictive KL with the teacher.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipeline.errors import DataError, ModelError
from pipeline.measuring.measured import Metrics
from pipeline.measuring.neighbours import common_neighbours
from pipeline.objectives.divergence import kl_divergence

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.signals import Signals

BINS = 15
ROWS_AT_A_TIME = 4096  # bounds the float64 copies: 4096 x 1000 classes are 33 MB each


def measure_signals(network: Signals, labels: NDArray[np.int64] | Tensor | None, teacher: Signals | None) -> Metrics:
    """Measure what a network says of N images: its logits [N, K], or its embeddings where one of both has no logits.

    Args:
        labels: int64 [N]; None where there are none.
        teacher: what it says of the same images, if that is known.

    Raises as `measure` does.
    """
    both = teacher is not None and teacher.logits.shape[1] > 0 and network.logits.shape[1] > 0
    if network.logits.shape[1] and (both or labels is not None):
        metrics = measure(network.logits, labels, teacher.logits if teacher is not None and both else None)
    else:
        metrics = Metrics(None, None, None, None, None, None, len(network.logits))
    if teacher is None or both:
        return metrics
    return dataclasses.replace(metrics, agreement=common_neighbours(_deepest(network), _deepest(teacher)))


def _deepest(signals: Signals) -> Tensor:
    """Return the embedding, or, of what keeps none, the logits."""
    return signals.logits if signals.embedding is None else signals.embedding


def measure(logits: Tensor, labels: NDArray[np.int64] | Tensor | None, teacher_logits: Tensor | None = None) -> Metrics:
    """Compare `logits` [N, K] with `labels` int64 [N] and with `teacher_logits` [N, K], those that are given.

    Computed in float64. Of equal logits, the one of the lower class counts as larger.
    Raises DataError for labels outside [0, K) and shapes that do not fit, ModelError for logits not finite.
    """
    labels = None if labels is None else torch.as_tensor(labels).cpu()
    _refuse_mismatch(logits, labels, teacher_logits)
    count, classes = logits.shape
    ranks, losses, confidences, agreements, divergences = [], [], [], [], []
    for start in range(0, count, ROWS_AT_A_TIME):
        rows = slice(start, start + ROWS_AT_A_TIME)
        z = logits[rows].detach().cpu().double()
        if labels is not None:
            y = labels[rows]
            log_probabilities = torch.log_softmax(z, dim=1)
            ranks.append(_rank(z, y))
            losses.append(-log_probabilities.gather(1, y[:, None])[:, 0])
            confidences.append(log_probabilities.amax(dim=1).exp())
        if teacher_logits is not None:
            t = teacher_logits[rows].detach().cpu().double()
            agreements.append(_rank(z, first_largest(t)) == 0)
            divergences.append(kl_divergence(z, t))
    rank = torch.cat(ranks) if ranks else None
    return Metrics(
        top1=None if rank is None else _mean(rank == 0),
        top5=None if rank is None else _mean(rank < min(5, classes)),
        nll=_mean(torch.cat(losses)) if losses else None,
        ece=None if rank is None else _calibration_error(torch.cat(confidences), rank == 0),
        agreement=_mean(torch.cat(agreements)) if agreements else None,
        kl=_mean(torch.cat(divergences)) if divergences else None,
        count=count,
    )


def _refuse_mismatch(logits: Tensor, labels: Tensor | None, teacher_logits: Tensor | None) -> None:
    if logits.ndim != 2 or logits.shape[0] == 0:
        raise DataError("there is nothing to measure", expected="logits [N, K], N > 0", got=list(logits.shape))
    count, classes = logits.shape
    if labels is not None and labels.shape != (count,):
        raise DataError("labels and logits differ in number", expected=[count], got=list(labels.shape))
    if labels is not None and (int(labels.min()) < 0 or int(labels.max()) >= classes):
        raise DataError(
            "labels lie outside the network's classes",
            expected=f"0 to {classes - 1}",
            got=f"{int(labels.min())} to {int(labels.max())}",
            fix="evaluate a labelled split of the data that the network was trained for",
        )
    if teacher_logits is not None and teacher_logits.shape != logits.shape:
        raise DataError(
            "the teacher's logits do not belong to these images and classes",
            expected=list(logits.shape),
            got=list(teacher_logits.shape),
        )
    for whose, z in (("the network's", logits), ("the teacher's", teacher_logits)):
        if z is not None and not bool(torch.isfinite(z).all()):
            bad = int((~torch.isfinite(z)).any(dim=1).sum())
            raise ModelError(f"{whose} logits are not finite", got=f"{bad} of {count} images affected")


def _rank(z: Tensor, classes: Tensor) -> Tensor:
    """How many logits of [B, K] come before that of the class [B]: larger ones, and equal ones of lower classes."""
    own = z.gather(1, classes[:, None])
    lower = torch.arange(z.shape[1]) < classes[:, None]
    return ((z > own) | ((z == own) & lower)).sum(dim=1)


def first_largest(z: Tensor) -> Tensor:
    """Return the lowest class [B] with the largest logit; torch.argmax promises no order among equals.

    Args:
        z: logits [B, K].
    """
    return (z == z.amax(dim=1, keepdim=True)).to(torch.uint8).cumsum(dim=1).eq(0).sum(dim=1)


def confidence_bins(confidence: Tensor) -> Tensor:
    """Return the bin of every confidence, int64 [N]: bin m is (m / BINS, (m + 1) / BINS].

    Args:
        confidence: in [0, 1], float64 [N].
    """
    return (confidence * BINS).ceil().long().clamp(1, BINS) - 1


def _calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Sum over bins of |correct - confidence| / N."""
    bins = confidence_bins(confidence)
    gaps = torch.zeros(BINS, dtype=torch.float64)
    gaps.index_add_(0, bins, correct.double() - confidence)
    return float(gaps.abs().sum()) / len(confidence)


def _mean(values: Tensor) -> float:
    # The exact sum: the same number for every batch size and thread count.
    return math.fsum(values.double().tolist()) / len(values)
