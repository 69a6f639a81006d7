"""Holds what an objective is given of a batch besides signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class MixedLabels:
    """Holds what was mixed into the samples of a batch.

    Args:
        labels: [B] int64, of the samples that were mixed in, -1 where unlabeled.
        share: float32 [B], from 0 to 1, how much of each view is of the sample itself.
    """

    labels: Tensor
    share: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> MixedLabels:
        """Return the same with both tensors changed: moved, or cut to some rows.

        Args:
            change: what is done to each tensor.
        """
        return MixedLabels(change(self.labels), change(self.share))


@dataclass(frozen=True)
class Batch:
    """Holds what an objective is given of a batch besides signals.

    Args:
        labels: [B] int64, -1 where unlabeled.
        sample, view: [B] int64, the row in the cache and the view number.
        step: optimiser steps taken before this one; random choices are keyed by (seed, step).
        mixed: the other labels and the shares, where views mix two samples; else None.
    """

    labels: Tensor
    sample: Tensor
    view: Tensor
    step: int = 0
    mixed: MixedLabels | None = None
