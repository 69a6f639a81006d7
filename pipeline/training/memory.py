"""Reads the teacher's signals of any training sample, for objectives that need more samples than their batch has."""

from __future__ import annotations

from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.models.device import choose_device
from pipeline.progress import Progress
from pipeline.signals.moments import Moments
from pipeline.store.nearest import Among, kept_nearest
from pipeline.store.statistics import kept_moments
from pipeline.training.teacher_outputs import FromCaches

ROWS = 4096
"""Rows that are read at once for means: this bounds the memory."""


class Memory:
    """Serves as an exact memory bank that reads from the caches; `Context` takes its methods.

    Args:
        source: reads the caches.
        labels: int64 [N], -1 for a sample without one; None if none has one.
        classes: the number of classes, K.
        progress: shows how far a pass over a cache is; None shows nothing.
        device: where samples are compared with each other, as `train.device` names it.
    """

    def __init__(
        self,
        source: FromCaches,
        labels: NDArray[np.int64] | None,
        classes: int,
        progress: Progress | None = None,
        device: str = "auto",
    ) -> None:
        self.source, self.labels, self.classes, self.progress = source, labels, classes, progress
        self.device = device
        self._means: Tensor | None = None

    def bank(self, signal: str, samples: Tensor, view: int) -> Tensor:
        """Return a signal of samples [M] in the view with number `view`: float32 [M, ...], on the samples' device.

        Args:
            signal: `logits` (of an ensemble: combined), `embedding`, `features/<tap>`, `extras/<signal>/<tap>`.

        Raises CacheMismatch for a signal or a view that is not there.
        """
        return self.source.signal(signal, view, samples.cpu().numpy()).to(samples.device)

    def moments(self, signal: str) -> Moments:
        """Return mean and covariance of a signal of the primary teacher, over all that its caches hold.

        Args:
            signal: `embedding`, or `features/<tap>`.

        They are computed once and kept beside each cache, or on this machine for one on object storage. Raises
        CacheMismatch for a signal that is not there, CacheCorrupt for a file that is damaged.
        """
        caches = {cache.path: cache for cache in self.source.teachers[0].values()}
        each = [kept_moments(cache, signal, self.progress) for cache in caches.values()]
        return reduce(Moments.merged, each)

    def nearest(self, count: int, same: bool) -> Tensor:
        """Return the nearest samples of each in the primary teacher's embedding, over all views that are used.

        Args:
            count: how many; all others where there are fewer.
            same: whether those of the same class are meant, or those of others.

        int64 [N, count] on the CPU, -1 where there are fewer. They are found once and kept beside the cache. Raises
        CacheMismatch without embeddings, CacheCorrupt for a file that is damaged.
        """
        labels = np.full(self.source.primary.count, -1, np.int64) if self.labels is None else self.labels
        device, among = choose_device(self.device), Among(labels, same)
        return torch.from_numpy(kept_nearest(self.source.teachers[0], count, device, self.progress, among)).long()

    def class_means(self) -> Tensor:
        """Return the primary teacher's mean embedding of each class, over all labeled samples and views that are used.

        float32 [K, D] on the CPU; computed in float64 at the first call, then kept. Raises CacheMismatch
        without embeddings, and DataError if a class has no labeled sample.
        """
        if self._means is None:
            self._means = self._computed()
        return self._means

    def _computed(self) -> Tensor:
        labels = np.empty(0, np.int64) if self.labels is None else self.labels
        labeled = np.flatnonzero(labels >= 0)
        counts = np.bincount(labels[labeled], minlength=self.classes)
        if missing := np.flatnonzero(counts == 0).tolist():
            raise DataError(
                "there is no mean embedding of a class without labeled samples",
                expected=f"a label of each of {self.classes} classes",
                got=f"none of class {', '.join(map(str, missing[:8]))}{', ...' if len(missing) > 8 else ''}",
                fix="use a split with labels, or an objective that does not need means of classes",
            )
        sums: Tensor | None = None
        for view in self.source.views:
            for rows in np.array_split(labeled, -(-len(labeled) // ROWS)):
                embeddings = self.source.signal("embedding", view, rows).double()
                if sums is None:
                    sums = torch.zeros(self.classes, embeddings.shape[1], dtype=torch.float64)
                sums.index_add_(0, torch.from_numpy(labels[rows]), embeddings)
        assert sums is not None  # there are views, and labeled samples
        return (sums / torch.from_numpy(counts * len(self.source.views))[:, None]).float()
