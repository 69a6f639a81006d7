"""Writes pixels as files that need no decoder: PPM and PGM, a line of text and the pixels."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

_HEAD = re.compile(rb"P([56])\n(\d{1,9}) (\d{1,9})\n255\n")
_LONGEST_HEAD = 32


def encode_raw(image: NDArray[np.uint8]) -> bytes:
    """Write uint8 [H, W, C], C 1 or 3, as a PGM or PPM file.

    Args:
        image: the pixels.
    """
    height, width, channels = image.shape
    return b"P%d\n%d %d\n255\n" % (6 if channels == 3 else 5, width, height) + image.tobytes()


def decode_raw(encoded: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the pixels uint8 [H, W, C] in the bytes of a file that `encode_raw` wrote, without copying them.

    Args:
        encoded: the bytes of any file, uint8 [length].

    Returns None for any other file, such as one that is too short.
    """
    head = _HEAD.match(encoded[:_LONGEST_HEAD].tobytes())
    if head is None:
        return None
    width, height, channels = int(head[2]), int(head[3]), 3 if head[1] == b"6" else 1
    pixels = encoded[head.end() :]
    if len(pixels) == 0 or len(pixels) != height * width * channels:
        return None
    return pixels.reshape(height, width, channels)
