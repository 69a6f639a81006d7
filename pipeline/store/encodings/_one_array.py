"""Provides what encodings share that write a signal as one array of its shape, number by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.store.encodings._contract import Parts
from pipeline.store.encodings._rows import not_finite

if TYPE_CHECKING:  # torch takes seconds, and manifests name encodings
    from torch import Tensor


@dataclass(frozen=True)
class OneArray(ABC):
    """Stores a signal as one array of its shape. An encoding adds `dtype`, `write`, `read` and `error_bound`.

    Args:
        shape: of the signal of one view.

    Attributes:
        dtype: of the array, with its byte order, such as `<f2`.
    """

    shape: tuple[int, ...]

    dtype: ClassVar[str]

    @abstractmethod
    def write(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Return the array for finite values [R, ...]. Raises EncodingOverflow for values that it cannot store."""

    @abstractmethod
    def read(self, stored: Tensor) -> Tensor:
        """Return the values of what is stored: float32 [R, ...]."""

    @property
    def parts(self) -> Parts:
        """Return the main part, which is the only one."""
        return {"": (np.dtype(self.dtype), self.shape)}

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Return the main part of values [R, ...]. Raises EncodingOverflow as `write` does."""
        return {"": self.write(values)}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the values in float32: [R, ...]."""
        return self.read(parts[""])

    def impossible_rows(self, part: str, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which rows have values that are not finite: [R]."""
        if rows.dtype.kind == "f":
            return not_finite(rows)
        import torch

        return not_finite(self.read(torch.from_numpy(rows.copy())).numpy())
