"""Computes the mean and the covariance of vectors piece by piece, in float64 and in memory that does not grow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Moments:
    """Holds the mean and the covariance of vectors.

    Args:
        count: how many there were, N > 0.
        mean: float64 [D].
        covariance: float64 [D, D], of the N vectors themselves: divided by N.
    """

    count: int
    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]

    @classmethod
    def of(cls, vectors: NDArray[np.floating]) -> Moments:
        """Compute the moments of vectors in memory.

        Args:
            vectors: [N, D], at least one.
        """
        rows = vectors.astype(np.float64)
        mean = rows.mean(0)
        rows -= mean
        return cls(len(rows), mean, rows.T @ rows / len(rows))

    def merged(self, other: Moments) -> Moments:
        """Return the moments of these and other vectors together.

        Args:
            other: of as many components.

        After Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances",
        1979: nothing cancels, however far the mean is from 0.
        """
        count = self.count + other.count
        share, apart = other.count / count, other.mean - self.mean
        between = np.outer(apart, apart) * (share * (1 - share))
        covariance = self.covariance + (other.covariance - self.covariance) * share + between
        return Moments(count, self.mean + apart * share, covariance)
