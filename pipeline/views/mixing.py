"""Says what operations that mix two images provide, and with which image each image is mixed.

A view that mixes is made of two images: of its sample, and of a *partner*, another of the samples that are learnt
from. A view's partner is a function of seed, view and sample, and of which samples there are; never of a batch. All
samples are put in a random order, a new one for each seed and view. Each is mixed with the next one in it, and the
last with the first. So every sample is a partner once in each view, as where a batch is mixed with itself in
another order; never its own; and all others are equally likely. They are not looked for nearby: data sets are often
sorted by class, and neighbours then have the same label.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.views.keyed_random import random_words
from pipeline.views.operation import Size

if TYPE_CHECKING:  # torch takes seconds, and names of operations are wanted before
    from torch import Tensor

_PARTNER_STREAM = 0x706172746E6572  # "partner": keeps these random words apart from those of the parameters
_KEPT_ORDERS = 8


@runtime_checkable
class MixingOperation(Protocol):
    """Mixes two images: draws how much of each there is, and turns them into one.

    It is an `Operation`, but that `mix` stands for `apply`; images keep their size. The partner has a column of its
    own, which is none of `parameter_names`.
    """

    @property
    def exact(self) -> bool:
        """Tell whether it gives the same pixels on every device, thread count and batch size."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the P columns that `draw` returns."""

    @property
    def words(self) -> int:
        """Return how many random words of 64 bits one view takes."""

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the lowest and the highest value of each parameter for images of `size`."""

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw parameters int32 [B, P] from `words` [B, words] and the heights and widths [B, 2] of the images.

        Args:
            sizes: in pixels.
        """

    def mix(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """Compute the pixels uint8 [B, C, H, W] of two images each, of the same shape, under `parameters` [B, P].

        Args:
            partners: the images that are mixed in.
        """

    def shares(self, parameters: NDArray[np.int32], size: Size) -> NDArray[np.float64]:
        """Return how much of each view is the sample's own image, and its label: [B], from 0 to 1.

        Args:
            parameters: as `draw` returns them.
        """


class Partners:
    """Says which sample each is mixed with.

    Args:
        among: the positions of all of them, int64 [N], ascending.
    """

    def __init__(self, seed: int, among: NDArray[np.int64]) -> None:
        self.seed, self.among = seed, np.asarray(among, np.int64)
        self._next: dict[int, NDArray[np.int64]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_next": {}}

    def of(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the positions of the partners of the samples at these positions: int64 [B].

        Args:
            view: its number.

        Raises DataError for a sample that is none of those that there are.
        """
        places = np.searchsorted(self.among, samples)
        if len(samples) and not (places.max() < len(self.among) and np.array_equal(self.among[places], samples)):
            raise DataError(
                "a sample is not one of those that are mixed with each other",
                got=f"positions {samples.min()} to {samples.max()}",
                expected=f"some of {len(self.among):,} positions, {self.among[0]} to {self.among[-1]}",
            )
        following = self._next.get(view)
        if following is None:
            following = self._drawn(view)
            self._next = {**dict(list(self._next.items())[1 - _KEPT_ORDERS :]), view: following}
        return self.among[following[places]]

    def _drawn(self, view: int) -> NDArray[np.int64]:
        """Of every place among the samples the next one in the view's random order: int64 [N]."""
        words = random_words(self.seed ^ _PARTNER_STREAM, view, self.among, 1)[:, 0]
        order = np.argsort(words, kind="stable")
        following = np.empty_like(order)
        following[order] = np.roll(order, -1)
        return following

    def digest(self) -> str:
        """Compute `sha256:...` of the line `positions N` and the positions as little-endian int64."""
        found = hashlib.sha256(f"positions {len(self.among)}\n".encode())
        found.update(self.among.astype("<i8").data)
        return f"sha256:{found.hexdigest()}"
