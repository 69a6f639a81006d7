"""Declares what operations share that change a view or leave it, by chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.views.keyed_random import reals
from pipeline.views.operation import Size
from pipeline.views.resample import LARGE_IMAGE


@dataclass(frozen=True)
class ByChance:
    """Changes a view with a `probability` in [0, 1], and keeps its size. The one column is 1 where it does, else 0.

    An operation adds the name of the column and `apply`.
    """

    probability: float

    exact: ClassVar[bool] = True
    words: ClassVar[int] = 1
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return zero and one."""
        return ((0, 1),)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw 1 where a real in [0, 1) is below the probability."""
        return (reals(words) < self.probability).astype(np.int32)


def mirrored(images: Tensor, chosen: Tensor, axis: int) -> Tensor:
    """Mirror images [B, C, H, W] along an axis where `chosen` [B] is 1; leave them where it is 0."""
    B, _, H, W = images.shape
    if H * W >= LARGE_IMAGE and images.device.type == "cpu":
        given, result = images.numpy(), np.empty(images.shape, np.uint8)
        turned = np.flip(given, axis)
        for i, turn in enumerate(chosen.tolist()):  # each written once: large images are slow to copy
            result[i] = turned[i] if turn else given[i]
        return torch.from_numpy(result)
    # Both versions side by side and one gather of whole images: several times as fast as torch.where.
    both = torch.cat([images, images.flip(axis)])
    return both.index_select(0, torch.arange(B, device=images.device) + B * chosen)
