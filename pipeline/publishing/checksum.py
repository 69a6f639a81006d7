"""Computes CRC-32C (Castagnoli), as in zarr's `crc32c` codec."""

from __future__ import annotations

import google_crc32c
import numpy as np

PIECE = 4 << 20
"""The library keeps Python's other threads waiting for as long as it takes: about a millisecond."""


def crc32c(data: memoryview | bytes) -> int:
    """Compute the CRC-32C of bytes, piece by piece and without a copy: the library takes arrays, and no memoryview.

    Args:
        data: of any length.
    """
    view = memoryview(data).cast("B")
    value = 0
    for start in range(0, len(view), PIECE):
        value = google_crc32c.extend(value, np.frombuffer(view[start : start + PIECE], np.uint8))
    return value
