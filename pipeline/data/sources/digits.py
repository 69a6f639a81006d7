"""Reads the digits of scikit-learn: 1,797 grey images of 8 x 8 pixels, ten classes, no download.

E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998;
scikit-learn ships its test part.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from pipeline.data.source import InMemory, Item, SourceOptions

_TEST_PER_CLASS = 36


class Options(SourceOptions):
    """Declares no options: the split is fixed."""

    name: Literal["digits"] = "digits"


def open_source(options: Options) -> InMemory:
    """Open the digits: uint8 [8, 8, 1]; the values 0..16 of the original are scaled to 0..255.

    Splits: test, 36 images of every class, evenly spaced over its writers; train, the rest. Both are in the order of
    scikit-learn, and an id is the position there.

    Args:
        options: of the source.
    """
    from sklearn.datasets import load_digits  # takes a second: only who packs the digits waits for it

    data = load_digits()
    images = np.rint(data.images * (255 / 16)).astype(np.uint8)[..., None]
    test = np.zeros(len(images), np.bool_)
    for digit in range(10):
        mine = np.flatnonzero(data.target == digit)
        test[mine[np.arange(_TEST_PER_CLASS) * len(mine) // _TEST_PER_CLASS]] = True
    items = [Item(image, int(data.target[i]), f"digits/{i:04d}") for i, image in enumerate(images)]
    listed = {name: [items[i] for i in np.flatnonzero(test == (name == "test"))] for name in ("train", "test")}
    return InMemory(tuple(str(digit) for digit in range(10)), "scikit-learn digits", listed)
