"""Makes large images small before they are packed, as the operation `resize` makes them small in a view."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.views.operations.resize import Resize


@contextmanager
def shrinking() -> Iterator[Callable[[NDArray[np.uint8], int], NDArray[np.uint8]]]:
    """Yield `shrink`, for threads that begin meanwhile: each is one for torch, too, since they are as many as cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield shrink
    finally:
        torch.set_num_threads(before)


def shrink(image: NDArray[np.uint8], shorter_side: int) -> NDArray[np.uint8]:
    """Reduce an image uint8 [H, W, C] to a shorter side of `shorter_side` pixels; a smaller one is returned as it is.

    The pixels are those of `{name: resize, size: <shorter_side>}`: the same on every machine.
    """
    height, width, _ = image.shape
    if min(height, width) <= shorter_side:
        return image
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    small = Resize(shorter_side).apply(pixels, torch.empty(1, 0, dtype=torch.int32))
    return np.ascontiguousarray(small[0].permute(1, 2, 0).numpy())
