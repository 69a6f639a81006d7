"""Stores numbers in IEEE 754 half precision: rounded to the nearest, 11 significant bits, magnitudes up to 65,504."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.plugins import NoOptions
from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding
from pipeline.store.encodings._half import half_bound, halves
from pipeline.store.encodings._one_array import OneArray

if TYPE_CHECKING:  # torch takes seconds, and manifests name encodings
    from torch import Tensor

SIGNALS = EVERY_SIGNAL


class Float16(OneArray):
    """Stores a signal in half precision."""

    dtype = "<f2"

    def write(self, values: NDArray[np.float32]) -> NDArray[np.float16]:
        """Round values [R, ...] to half precision. Raises EncodingOverflow for those that would become infinite."""
        return halves(values)

    def read(self, stored: Tensor) -> Tensor:
        """Return the values in float32: [R, ...]."""
        return stored.float()

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return half a unit in the last place of each value: [R, ...]."""
        return half_bound(values)


def build(shape: tuple[int, ...], options: NoOptions) -> Encoding:
    """Return the encoding for a signal of any shape. It has no options."""
    return Float16(shape)
