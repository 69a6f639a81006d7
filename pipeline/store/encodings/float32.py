"""IEEE 754 single precision: exact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

TOLERANCE = (0.0, 0.0)


def parts(shape: tuple[int, ...]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """One array of the signal's shape."""
    return {"": (np.dtype("<f4"), shape)}


def encode(values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
    """The values themselves."""
    return {"": values}


def decode(parts: Mapping[str, Tensor]) -> Tensor:
    """The values themselves."""
    return parts[""]
