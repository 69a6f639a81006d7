"""IEEE 754 single precision: exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.plugins import NoOptions
from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding, Parts
from pipeline.store.encodings._rows import not_finite

SIGNALS = EVERY_SIGNAL


@dataclass(frozen=True)
class Float32:
    """One array of the signal's shape."""

    shape: tuple[int, ...]

    @property
    def parts(self) -> Parts:
        """The main part alone."""
        return {"": (np.dtype("<f4"), self.shape)}

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The values themselves."""
        return {"": values}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The values themselves."""
        return parts[""]

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Nothing."""
        return np.zeros(values.shape)

    def impossible_rows(self, part: str, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Those with values that are not finite."""
        return not_finite(rows)


def build(shape: tuple[int, ...], options: NoOptions) -> Encoding:
    """For a signal of any shape."""
    return Float32(shape)
