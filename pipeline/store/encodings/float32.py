"""Stores numbers as they are, in IEEE 754 single precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.plugins import NoOptions
from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding
from pipeline.store.encodings._one_array import OneArray

if TYPE_CHECKING:  # torch takes seconds, and manifests name encodings
    from torch import Tensor

SIGNALS = EVERY_SIGNAL


class Float32(OneArray):
    """Stores a signal in single precision."""

    dtype = "<f4"

    def write(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the values [R, ...] as they are."""
        return values

    def read(self, stored: Tensor) -> Tensor:
        """Return the stored values [R, ...] as they are."""
        return stored

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return zeros [R, ...], since nothing is rounded."""
        return np.zeros(values.shape)


def build(shape: tuple[int, ...], options: NoOptions) -> Encoding:
    """Return the encoding for a signal of any shape. It has no options."""
    return Float32(shape)
