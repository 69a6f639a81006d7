"""Mixes two images by mixup or by CutMix: what the operations of these names share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from pipeline.views.beta import LARGEST_ALPHA, WHOLE, beta_shares
from pipeline.views.keyed_random import integers, reals
from pipeline.views.operation import Size

Alpha = Annotated[float, Field(gt=0, le=LARGEST_ALPHA)]
"""Of Beta(alpha, alpha): below 1 most shares are near 0 or 1, at 1 all are alike, above 1 most are near a half."""

MixProbability = Annotated[float, Field(ge=0, le=1)]
"""How often something is done."""

# Values worked on at a time: temporaries of a few megabytes stay in a CPU's cache.
_CHUNK_ON_CPU, _CHUNK_ELSEWHERE = 1 << 18, 1 << 26
_BOX = ("top", "left", "height", "width")


@dataclass(frozen=True)
class MixOrCut:
    """Is the base of operations that mix two images: by a blend, by a box of one in the other, or by either.

    Args:
        mixup_alpha, cutmix_alpha: of the distribution of shares; None where that is never done.
        cutmix_share: how often a mixed view is cut.
        probability: that a view is mixed.
    """

    mixup_alpha: float | None
    cutmix_alpha: float | None
    cutmix_share: float
    probability: float

    exact: ClassVar[bool] = True
    words: ClassVar[int] = 5

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return `share` and the box, of which one may lack."""
        return ("share",) * (self.mixup_alpha is not None) + _BOX * (self.cutmix_alpha is not None)

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return 0 to 65,536, and boxes inside the image, perhaps empty."""
        H, W = size
        box = ((0, H), (0, W), (0, H), (0, W))
        return ((0, WHOLE),) * (self.mixup_alpha is not None) + box * (self.cutmix_alpha is not None)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw from five words: whether to mix, which way, the share, and row and column of the box's centre."""
        mixed = reals(words[:, 0]) < self.probability
        cut = mixed & (reals(words[:, 1]) < self.cutmix_share)
        columns: list[NDArray[np.int64]] = []
        if self.mixup_alpha is not None:
            columns.append(np.where(mixed & ~cut, beta_shares(words[:, 2], self.mixup_alpha), WHOLE))
        if self.cutmix_alpha is not None:
            assert sizes is not None
            area = np.where(cut, WHOLE - beta_shares(words[:, 2], self.cutmix_alpha), 0)
            top, height = _side(words[:, 3], sizes[:, 0], area)
            left, width = _side(words[:, 4], sizes[:, 1], area)
            columns += [np.where(cut, each, 0) for each in (top, left, height, width)]
        return np.stack(columns, 1).astype(np.int32)

    def mix(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """Blend, rounded to the nearest, halves up; then put the box in its place: uint8 [B, C, H, W]."""
        chunk = _CHUNK_ON_CPU if images.device.type == "cpu" else _CHUNK_ELSEWHERE
        step = max(1, chunk // images[0].numel()) if len(images) else 1
        parts = [slice(i, i + step) for i in range(0, max(len(images), 1), step)]
        return torch.cat([self._mixed(images[part], partners[part], parameters[part]) for part in parts])

    def _mixed(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        columns = parameters[:, :, None, None, None].unbind(1)
        if self.mixup_alpha is not None:
            share, columns = columns[0], columns[1:]
            # s a + (1 - s) b = b + s (a - b): of at most 24 bits, and a shift of a negative number rounds down.
            other = partners.to(torch.int32)
            blend = (((images.to(torch.int32) - other) * share + WHOLE // 2) >> 16) + other
            images = blend.to(torch.uint8)
        if self.cutmix_alpha is not None:
            top, left, height, width = columns
            row = torch.arange(images.shape[2], device=images.device)[:, None]
            column = torch.arange(images.shape[3], device=images.device)
            inside = (row >= top) & (row < top + height) & (column >= left) & (column < left + width)
            images = torch.where(inside, partners, images)
        return images

    def shares(self, parameters: NDArray[np.int32], size: Size) -> NDArray[np.float64]:
        """Return the share of the blend, or the part of the area outside the box: [B].

        Args:
            parameters: int32 [B, P], as they were drawn.
            size: height and width of the views.
        """
        own = np.ones(len(parameters))
        if self.mixup_alpha is not None:
            own *= parameters[:, 0] / WHOLE
        if self.cutmix_alpha is not None:
            own *= 1 - parameters[:, -2].astype(np.int64) * parameters[:, -1] / (size[0] * size[1])
        return own


def _side(
    words: NDArray[np.uint64], lengths: NDArray[np.int64], area: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Start and length of a box along one side: centred on any pixel, and cut off where the image ends.

    Before that its length is sqrt(area / 65,536) of the side, rounded down to whole pixels. area: in 65,536ths.
    """
    # The root of a whole number below 2^52, rounded down, is exact: near a square, floats are dense enough.
    length = np.sqrt((lengths * lengths * area).astype(np.float64)).astype(np.int64) // 256
    centre = integers(words, lengths)
    start = np.maximum(centre - length // 2, 0)
    return start, np.minimum(centre + (length + 1) // 2, lengths) - start
