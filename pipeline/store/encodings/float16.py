"""Stores numbers in IEEE 754 half precision: rounded to the nearest, 11 significant bits, magnitudes up to 65,504."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.plugins import NoOptions
from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding, Parts
from pipeline.store.encodings._half import half_bound, halves
from pipeline.store.encodings._rows import not_finite

SIGNALS = EVERY_SIGNAL


@dataclass(frozen=True)
class Float16:
    """Stores a signal as one array of its shape. shape: of the signal of one view."""

    shape: tuple[int, ...]

    @property
    def parts(self) -> Parts:
        """Return the main part, which is the only one."""
        return {"": (np.dtype("<f2"), self.shape)}

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Round values [R, ...] to half precision. Raises EncodingOverflow for those that would become infinite."""
        return {"": halves(values)}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the values in float32: [R, ...]."""
        return parts[""].float()

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return half a unit in the last place of each value: [R, ...]."""
        return half_bound(values)

    def impossible_rows(self, part: str, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which rows have values that are not finite: [R]."""
        return not_finite(rows)


def build(shape: tuple[int, ...], options: NoOptions) -> Encoding:
    """Return the encoding for a signal of any shape. It has no options."""
    return Float16(shape)
