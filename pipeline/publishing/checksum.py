"""CRC-32C (Castagnoli), as in zarr's `crc32c` codec."""

from __future__ import annotations

import google_crc32c

PIECE = 4 << 20


def crc32c(data: memoryview | bytes) -> int:
    """Compute the CRC-32C of bytes, piece by piece: the library takes `bytes` alone, so a piece is copied."""
    view = memoryview(data).cast("B")
    value = 0
    for start in range(0, len(view), PIECE):
        value = google_crc32c.extend(value, bytes(view[start : start + PIECE]))
    return value
