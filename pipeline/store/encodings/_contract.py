"""What a file of this folder provides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline import plugins

ENCODINGS = "pipeline.store.encodings"
"""The package whose files are the encodings."""


class EncodingOverflow(ArithmeticError):  # noqa: N818 - as OverflowError, but with rows
    """Finite values that the encoding cannot hold. `rows` are their indices, `limit` what it holds at most."""

    def __init__(self, rows: NDArray[np.intp], limit: float) -> None:
        """Rows of the encoded batch, in ascending order, and the largest magnitude that fits."""
        super().__init__(f"rows {rows.tolist()} exceed {limit:g}")
        self.rows, self.limit = rows, limit


class Encoding(Protocol):
    """A module that writes a signal as one or more arrays and reads it back.

    `TOLERANCE`: (relative, absolute): a decoded value differs from the encoded one by at most
    relative * |value| + absolute.
    """

    TOLERANCE: tuple[float, float]

    def parts(self, shape: tuple[int, ...]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Data type and shape, for one view, of every array. The main part is named "".

        Part `scale` of the signal `logits` is stored as the array `logits.scale`.
        """

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """The parts of finite values [R, ...]. Raises EncodingOverflow."""

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """The float32 values [R, ...] of the parts, on their device."""


def load(name: str, key: str) -> Encoding:
    """The encoding of a name. Raises ConfigError at the dotted `key` if there is none."""
    return cast(Encoding, plugins.load(ENCODINGS, name, key))
