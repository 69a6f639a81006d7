"""Keeps memory banks, and draws negatives from them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.objectives.batch import to_device


class MomentumBank(nn.Module):
    """Keeps one unit vector for every sample of the training set, a running mean of what a network computes for it.

    count: N.

    Args:
        width: D.
        momentum: of the mean, in [0, 1). `rows` [N, D] is a buffer, saved with the student: 4 N D bytes.

    At first they are random directions.
    """

    rows: Tensor

    def __init__(self, samples: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("rows", F.normalize(torch.rand(samples, width) - 0.5, dim=1))

    @torch.no_grad()
    def update(self, samples: Tensor, values: Tensor) -> None:
        """Set rows[i] = norm(momentum · rows[i] + (1 - momentum) · value), for samples [B] and unit values [B, D].

        Of several views of a sample the last one counts.
        """
        position = torch.arange(len(samples), device=samples.device)
        last = torch.where(samples[:, None] == samples, position, -1).amax(1)  # rows of one sample say the same
        old = self.rows[samples]
        new = self.momentum * old + (1 - self.momentum) * values[last].to(old.dtype)
        self.rows[samples] = F.normalize(new, dim=1)


def draw_pool(labels: Tensor, count: float, seed: int, step: int, size: int | None = None) -> Tensor:
    """Different samples, uniform among all: [P], on the CPU. Depends on (seed, step) alone.

    As many as leave `count` of other classes to a sample of the most frequent class, on average; all if too few.

    Args:
        labels: [N], of the training set, none of them -1.
        size: as `pool_size` says, if that is known; then only the number of labels counts.
    """
    return draw_samples(len(labels), pool_size(labels, count) if size is None else size, seed, step)


def draw_samples(samples: int, count: int, seed: int, step: int) -> Tensor:
    """Draw different ones of so many samples, all equally likely: [count], on the CPU; all if there are fewer.

    Args:
        samples: N, how many there are.
        count: how many are drawn.
        seed, step: decide alone which.
    """
    return torch.from_numpy(_random(seed, step).choice(samples, min(count, samples), replace=False))


def pool_size(labels: Tensor, count: float) -> int:
    """Return how many samples leave `count` of other classes to one of the most frequent class, on average.

    Args:
        labels: [N]; N is the most.
    """
    share = float(torch.unique(labels, return_counts=True)[1].max()) / len(labels)
    return min(len(labels), math.ceil(count / max(1 - share, 1e-9)))


def with_room(count: int) -> float:
    """Return `count` and four standard deviations: so many are drawn where `count` of other classes are needed."""
    return count + 4 * math.sqrt(count)


def draw_some(samples: Tensor, count: int, seed: int, step: int) -> Tensor:
    """Draw at most `count` different ones of samples [B], ascending: [A]. Their order in the batch does not matter.

    Args:
        seed, step: key the random numbers.
    """
    different: Tensor = torch.unique(samples)
    if len(different) <= count:
        return different
    chosen = np.sort(_random(seed, step).choice(len(different), count, replace=False))
    return different[torch.from_numpy(chosen).to(different.device)]


@dataclass(frozen=True)
class Negatives:
    """Holds samples of other classes.

    `pool` [P]: different samples, on the CPU; `columns` [B, M]: which of them are each row's.
    """

    pool: Tensor
    columns: Tensor


def draw_negatives(
    labels: Tensor, batch_labels: Tensor, count: int, seed: int, step: int, size: int | None = None
) -> Negatives:
    """Draw `count` negatives for each row of a batch, uniform among the samples of other classes, without repetition.

    The rows share one pool, a little larger than `count`, of which each takes the first that are not of its class: a
    row's negatives are distributed as if they were drawn for it alone, and a step touches hundreds of samples, not
    tens of thousands. They repeat only if the pool has too few of other classes. Depends on (seed, step) alone.

    Args:
        labels: [N], of the training set, at least two classes.
        batch_labels: [B], on the same device.
        size: of the pool, `pool_size` of `with_room(count)`, if that is known.
    """
    pool = draw_pool(labels, with_room(count), seed, step, size)
    other = labels[to_device(pool, labels.device)] != batch_labels[:, None]
    first = other.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    position = torch.arange(count, device=first.device) % other.sum(1, keepdim=True).clamp(min=1)
    return Negatives(pool, first.gather(1, position))


def _random(seed: int, step: int) -> np.random.Generator:
    """A generator of this step's choices."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, step], dtype=np.uint64)))
