"""Declares the contract of encodings: what a file of this folder provides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes seconds, and manifests name encodings
    from torch import Tensor

EVERY_SIGNAL = ("logits", "embedding", "features", "extras")
"""The kinds of signals."""

Parts = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Data type and shape, for one view, of each array that an encoding writes, by the name of the part."""


class EncodingOverflow(ArithmeticError):  # noqa: N818 - as OverflowError, but with rows
    """Reports finite values that an encoding cannot store.

    Args:
        rows: the rows of the encoded batch that have such values, in ascending order.
        limit: the largest magnitude that the encoding stores.
    """

    def __init__(self, rows: NDArray[np.intp], limit: float) -> None:
        super().__init__(f"rows {rows.tolist()} exceed {limit:g}")
        self.rows, self.limit = rows, limit


class Encoding(Protocol):
    """Writes one signal as one or more arrays, and reads it back. Each row is encoded by itself."""

    @property
    def parts(self) -> Parts:
        """Return data type and shape of each array.

        The main part is named "". Part `scale` of the signal `logits` is the array `logits.scale`.
        """

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return the parts of finite values [R, ...]. Raises EncodingOverflow for values that it cannot store."""

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the values of stored `parts`: float32 [R, ...], on their device. The caller turns autocast off.

        Unsigned integers may be given as signed integers with the same bits.
        """

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the largest difference that encoding and decoding may make to each of `values` [R, ...]: [R, ...]."""

    def impossible_rows(self, part: str, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which rows of a part cannot be what `encode` wrote: bool [R].

        Args:
            part: its name.
            rows: stored values [R, ...]; the fill value of an array is one that cannot be.
        """
