"""Reads the digits of scikit-learn: 1,797 grey images of 8 x 8 pixels, ten classes, no download.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998;
scikit-learn ships its test part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.data.source import Item, SourceOptions

_TEST_PER_CLASS = 36


class Options(SourceOptions):
    """Declares no options: the split is fixed."""

    name: Literal["digits"] = "digits"


def open_source(options: Options) -> Digits:
    """Open the digits. Splits: test, 36 images of every class, evenly spaced over its writers; train, the rest.

    options: of the source.
    """
    return Digits()


class Digits:
    """Gives uint8 [8, 8, 1]; the values 0..16 of the original are scaled to 0..255."""

    class_names = tuple(str(digit) for digit in range(10))
    splits = ("train", "test")
    description = "scikit-learn digits"

    def __init__(self) -> None:
        from sklearn.datasets import load_digits  # takes a second: only who packs the digits waits for it

        data = load_digits()
        self._images: NDArray[np.uint8] = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
        self._labels: NDArray[np.int64] = data.target.astype(np.int64)
        test = np.zeros(len(self._labels), np.bool_)
        for digit in range(10):
            mine = np.flatnonzero(self._labels == digit)
            test[mine[np.arange(_TEST_PER_CLASS) * len(mine) // _TEST_PER_CLASS]] = True
        self._positions = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}

    def count(self, split: str) -> int:
        """Return the number of images of `split`: 1,437 for train, 360 for test."""
        return len(self._positions[split])

    def items(self, split: str) -> Iterator[Item]:
        """Yield the images of `split` in the order of scikit-learn; the id is the position there."""
        for position in self._positions[split].tolist():
            yield Item(self._images[position], int(self._labels[position]), f"digits/{position:04d}")
