"""Computes a 64-bit digest of each rendered view, to compare its pixels with those that the teacher saw."""

from __future__ import annotations

import numpy as np
import xxhash
from numpy.typing import NDArray
from torch import Tensor


def digest(images: Tensor) -> NDArray[np.uint64]:
    """Compute XXH3-64 of the bytes of each view in C, H, W order: uint64 [B] for `images` uint8 [B, C, H, W].

    The seed is `(C << 48) | (H << 24) | W`, so that equal bytes in another shape are another view.
    """
    B, C, H, W = images.shape
    seed = (C << 48) | (H << 24) | W
    rows = images.detach().cpu().flatten(1).contiguous().numpy()
    return np.fromiter((xxhash.xxh3_64_intdigest(row, seed) for row in rows), np.uint64, B)
