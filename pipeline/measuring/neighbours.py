"""Scores embeddings by their nearest neighbours: with labels (kNN), and against another network's embeddings.

kNN as DINO does (Caron et al., arXiv 2104.14294): an image has the class with the largest sum of votes exp(s / τ) of
its k nearest images of a labeled bank, s their cosines. Agreement is the mutual k-NN alignment of Huh et al. (arXiv
2405.07987): the mean share of an image's k nearest neighbours that two networks have in common. It asks nothing of
widths or coordinates, so it compares any two networks.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import DataError, ModelError

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""k and τ of kNN, as in DINO's evaluation."""

COMMON_NEIGHBOURS = 10
"""k of the agreement."""

QUERIES_AT_A_TIME = 1024
COSINES_AT_A_TIME = 1 << 27
"""Half a gigabyte of them: fewer queries, where the bank is large."""


def knn_classes(
    embeddings: Tensor,
    bank: Tensor,
    labels: Tensor,
    neighbours: int = NEIGHBOURS,
    temperature: float = TEMPERATURE,
) -> Tensor:
    """Return the class of each embedding [N, D], int64 [N], by the votes of its nearest neighbours in a bank.

    Args:
        bank: embeddings [M, D].
        labels: theirs, int64 [M], -1 for those without, which have no vote.
        neighbours: k, or all if there are fewer.
        temperature: τ > 0.

    Of classes with equal votes, the lower one. Raises DataError for a bank without labels, ModelError
    for embeddings that are not finite.
    """
    known = labels >= 0
    bank, labels = _unit(bank[known]), labels[known]
    if not len(labels):
        raise DataError("nearest neighbours tell nothing without labels", fix="name a split that has some")
    count, classes, step = min(neighbours, len(labels)), int(labels.max()) + 1, _queries(len(labels))
    found = []
    for start in range(0, len(embeddings), step):
        cosines, nearest = (_unit(embeddings[start : start + step]) @ bank.T).topk(count)
        votes = torch.zeros(len(nearest), classes, dtype=torch.float64)
        votes.scatter_add_(1, labels[nearest], ((cosines.double() - 1) / temperature).exp())
        found.append(votes.argmax(1))
    return torch.cat(found)


def knn_accuracy(embeddings: Tensor, truth: Tensor, bank: Tensor, labels: Tensor) -> float:
    """Return the share of embeddings [N, D] whose class by `knn_classes` is the label in `truth`, int64 [N].

    Args:
        bank, labels: embeddings [M, D] that are looked through, and their labels int64 [M].
    """
    found = knn_classes(embeddings, bank, labels)
    return float((found == truth).double().mean())


def common_neighbours(one: Tensor, other: Tensor, neighbours: int = COMMON_NEIGHBOURS) -> float:
    """Return the mean share of an image's nearest neighbours that two networks have in common, in [0, 1].

    Args:
        one, other: what the networks say of the same N images, [N, D] and [N, D'].
        neighbours: k, or half of the other images if that is fewer: of all others, two networks have all in common.

    By cosine; the image itself does not count. Chance alone gives k / (N - 1). Raises DataError for one image.
    """
    if len(one) < 2 or len(one) != len(other):
        raise DataError("neighbours are compared of two images or more, the same of both", got=[len(one), len(other)])
    count = min(neighbours, max(1, (len(one) - 1) // 2))
    units, shares, step = (_unit(one), _unit(other)), [], _queries(len(one))
    for start in range(0, len(one), step):
        rows = torch.arange(start, min(start + step, len(one)))
        mine, theirs = (_nearest(unit, rows, count) for unit in units)
        common = (mine[:, :, None] == theirs[:, None, :]).any(2)
        shares += common.double().mean(1).tolist()
    return math.fsum(shares) / len(shares)


def _nearest(units: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the nearest of all for some rows: int64 [B, k]."""
    cosines = units[rows] @ units.T
    cosines[torch.arange(len(rows)), rows] = -torch.inf
    return cosines.topk(count).indices


def _queries(bank: int) -> int:
    """How many images are compared with a bank of so many at once."""
    return max(1, min(QUERIES_AT_A_TIME, COSINES_AT_A_TIME // bank))


def _unit(vectors: Tensor) -> Tensor:
    vectors = vectors.detach().cpu().float()
    wrong = int((~vectors.isfinite()).any(1).sum())
    if wrong:
        raise ModelError("embeddings are not finite", got=f"{wrong} of {len(vectors)} images affected")
    return F.normalize(vectors, dim=1)
