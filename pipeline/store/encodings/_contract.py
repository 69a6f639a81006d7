"""The contract of encodings: what a file of this folder provides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

EVERY_SIGNAL = ("logits", "embedding", "features", "extras")
"""The kinds of signals."""

Parts = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Data type and shape, for one view, of every array that an encoding writes, by the name of the part."""


class EncodingOverflow(ArithmeticError):  # noqa: N818 - as OverflowError, but with rows
    """Finite values that the encoding cannot hold. `rows` are their indices, `limit` what it holds at most."""

    def __init__(self, rows: NDArray[np.intp], limit: float) -> None:
        """Rows of the encoded batch, in ascending order, and the largest magnitude that fits."""
        super().__init__(f"rows {rows.tolist()} exceed {limit:g}")
        self.rows, self.limit = rows, limit


class Encoding(Protocol):
    """Writes one signal as one or more arrays and reads it back. Rows are encoded each by itself."""

    @property
    def parts(self) -> Parts:
        """The arrays. The main part is named ""; part `scale` of the signal `logits` is the array `logits.scale`."""

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The parts of finite values [R, ...]. Raises EncodingOverflow."""

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The float32 values [R, ...] of the parts, on their device, with autocast off.

        Unsigned integers may come as the signed ones of the same bits.
        """

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far, at most, each decoded value may lie from its own of `values` [R, ...], if encoding accepts them."""

    def impossible_rows(self, part: str, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Which rows [R, ...] of a part cannot come from `encode`, the fill value of an array among them: [R]."""
