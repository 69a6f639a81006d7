"""Holds what an objective is given of a batch besides signals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
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
        host: the same on the CPU, where it was before it went to a device; None where it is not known.
    """

    labels: Tensor
    sample: Tensor
    view: Tensor
    step: int = 0
    mixed: MixedLabels | None = None
    host: Batch | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """Return the same with all tensors changed: moved, or cut to some rows.

        Args:
            change: what is done to each tensor.
        """
        mixed, host = self.mixed and self.mixed.map(change), self.host and self.host.map(change)
        return Batch(change(self.labels), change(self.sample), change(self.view), self.step, mixed, host)

    def on_cpu(self) -> Batch:
        """Return the batch on the CPU, where `prepare` may look at it. Waits for a device only if `host` is None."""
        if self.sample.device.type == "cpu":
            return self
        return replace(self.host, step=self.step) if self.host else self.map(Tensor.cpu)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the CPU on `device`, without waiting for what is computed there."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
