"""Standardises the signals of a teacher by their mean and covariance: each channel for itself, or by PHI-S.

PHI-S is of Ranzinger et al., "PHI-S: Distribution Balancing for Label-Free Multi-Teacher Distillation", 2024, arXiv
2410.01680. With the mean μ and the covariance Σ = U diag(e) Uᵀ of D channels, and a normalised Hadamard matrix H, which
is orthogonal and has entries of ±1/sqrt(D):

    y = W (x - μ),   W = H Uᵀ / sqrt(mean(e))

Every channel of y has variance 1 exactly, since those of H diag(e) Hᵀ are all mean(e). W is a rotation and one factor:
an error of y has the size of the same error of x, in whatever direction, while a factor for each channel (`channels`)
would make errors of quiet channels count more. W is the same at all places of a map: it commutes with means of cells.

Where no Hadamard matrix is known to this file, H is another orthogonal matrix for which the channels of H diag(e) Hᵀ
have equal variances, made of plane rotations for these e. So the variances are 1 exactly for every D. (The authors'
code takes a random matrix there, for which they are not.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.signals.moments import Moments

Standardise = Literal["channels", "phi-s"]
"""How signals are standardised: each channel to mean 0 and variance 1, or rotated and scaled as a whole."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Standardisation:
    """Maps vectors x to W (x - μ).

    Args:
        mean: μ, float64 [D].
        weight: W, float64 [D, D], or its diagonal [D].
    """

    mean: Matrix
    weight: Matrix

    @classmethod
    def of(cls, moments: Moments, how: Standardise) -> Standardisation:
        """Return what standardises vectors of some mean and covariance.

        Args:
            moments: of the vectors.
            how: which way.

        A channel that is constant stays one: it becomes 0.
        """
        if how == "channels":
            deviation = np.sqrt(np.diag(moments.covariance).clip(0))
            return cls(moments.mean, 1 / np.where(deviation > 0, deviation, 1))
        variances, axes = np.linalg.eigh(moments.covariance)
        variances = variances.clip(0)
        # An eigenvector's sign is a matter of chance: fixed, so that every machine finds the same targets.
        largest = np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0)
        axes = axes * np.where(largest < 0, -1.0, 1.0)
        rotation = hadamard(len(variances))
        rotation = balanced_rotation(variances) if rotation is None else rotation
        scale = math.sqrt(variances.mean())
        return cls(moments.mean, rotation @ axes.T / (scale or 1.0))

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return mean and weight in float32, on the CPU."""
        return torch.from_numpy(self.mean).float(), torch.from_numpy(self.weight).float()


def standardise(signal: Tensor, mean: Tensor, weight: Tensor) -> Tensor:
    """Compute W (x - μ) along the channels, in float32 even under autocast.

    Args:
        signal: [B, D], or maps [B, D, H, W].
        mean, weight: as of `Standardisation.tensors`, on its device.
    """
    with torch.autocast(signal.device.type, enabled=False):
        rows = signal.float().movedim(1, -1) - mean
        rows = rows * weight if weight.ndim == 1 else rows @ weight.T
        return rows.movedim(-1, 1)


def hadamard(size: int) -> Matrix | None:
    """Return an orthogonal matrix [size, size] whose entries are all ±1/sqrt(size); None if this knows none.

    Args:
        size: D > 0. Sylvester's doubling of the orders 1, 2, and Paley's q + 1 and 2 (q + 1) for primes q. So it knows
            the widths of common networks, such as 192, 384, 512, 768, 1024, 1152, 1280, 1408 and 2048.
    """
    most = (size & -size).bit_length() - 1
    found = ((doublings, _paley(size >> doublings)) for doublings in range(most, -1, -1))
    doublings, matrix = next(((count, each) for count, each in found if each is not None), (0, None))
    if matrix is None:
        return None
    for _ in range(doublings):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix / math.sqrt(size)


def _paley(order: int) -> Matrix | None:
    """Return a Hadamard matrix of ones and minus ones, by a construction of Paley's; None if neither has this order."""
    if order == 1:
        return np.ones((1, 1))
    if _is_prime(order - 1) and (order - 1) % 4 == 3:  # skew: I + S
        core = _jacobsthal(order - 1)
        border = np.block([[np.zeros((1, 1)), np.ones((1, order - 1))], [-np.ones((order - 1, 1)), core]])
        return border + np.eye(order)
    prime = order // 2 - 1
    if order % 2 == 0 and _is_prime(prime) and prime % 4 == 1:  # symmetric
        core = _jacobsthal(prime)
        border = np.block([[np.zeros((1, 1)), np.ones((1, prime))], [np.ones((prime, 1)), core]])
        signs = np.array([[1.0, 1.0], [1.0, -1.0]])
        return np.kron(border, signs) + np.kron(np.eye(prime + 1), np.array([[1.0, -1.0], [-1.0, -1.0]]))
    return None


def _jacobsthal(prime: int) -> Matrix:
    """Return χ(i - j), [q, q]: 1 where the difference is a square modulo the prime, -1 where it is none, 0 for 0."""
    character: Matrix = np.full(prime, -1.0)
    character[np.arange(1, prime) ** 2 % prime] = 1.0
    character[0] = 0.0
    places = np.arange(prime)
    matrix: Matrix = character[(places[:, None] - places[None, :]) % prime]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % each for each in range(2, math.isqrt(number) + 1))


def balanced_rotation(variances: Matrix) -> Matrix:
    """Return an orthogonal Q [D, D] for which the diagonal of Q diag(variances) Qᵀ is constant.

    Args:
        variances: [D], not negative. Each of D - 1 plane rotations mixes the largest with the smallest of those that
            are not the mean yet, so that one of them becomes the mean.
    """
    left, mean = variances.astype(np.float64), float(variances.mean())
    rotation, waiting = np.eye(len(left)), np.ones(len(left), bool)
    for _ in range(len(left) - 1):
        low = int(np.where(waiting, left, np.inf).argmin())
        high = int(np.where(waiting, left, -np.inf).argmax())
        if left[high] <= left[low]:
            break
        sine2 = (mean - left[low]) / (left[high] - left[low])
        sine2 = min(max(sine2, 0.0), 1.0)
        cosine, sine = math.sqrt(1 - sine2), math.sqrt(sine2)
        first, second = rotation[low].copy(), rotation[high].copy()
        rotation[low], rotation[high] = cosine * first + sine * second, cosine * second - sine * first
        left[high] += left[low] - mean
        left[low], waiting[low] = mean, False
    return rotation
