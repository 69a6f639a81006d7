"""Resizes images with compiled loops: the numbers of `resample.py`, several times as fast on large images.

Whole numbers throughout, so the bytes are those of torch's way on every processor. It takes one image at a time, in
any layout, and holds no lock of Python while it works. numba compiles it where it is first called, and keeps what
it compiled in a folder beside this file, or in the user's own if that cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

_Function = TypeVar("_Function", bound=Callable[..., Any])
_SHIFT = 14
_ONE, _HALF = 1 << _SHIFT, 1 << (_SHIFT - 1)
_UNIT = 1 << 16
_ROWS = 32


def _compiled(signature: str) -> Callable[[_Function], _Function]:
    """Compile for one signature alone: one of every layout would each take seconds, and gain nothing."""

    def compiled(function: _Function) -> _Function:
        try:
            made: Any = njit(signature, nogil=True, cache=True)(function)
        except RuntimeError:  # there is no folder to keep it in
            made = njit(signature, nogil=True)(function)
        return cast(_Function, made)

    return compiled


@_compiled("void(int64, int64, boolean, int64[::1], int64[::1], int32[:, ::1])")
def row_taps(
    length: int,
    target: int,
    cubic: bool,
    start: NDArray[np.int64],
    count: NDArray[np.int64],
    weights: NDArray[np.int32],
) -> None:
    """Find which of `length` pixels make each of `target` pixels, as `resample.taps` does.

    Args:
        start, count: for the first of these pixels and their number, [target].
        weights: for their weights in units of 2^-14, [target, T].
        length: of the row, in pixels.
        target: of the result.
        cubic: Keys' filter; else the triangle.
    """
    support = 2 if cubic else 1
    reach = 2 * max(length, target)
    most = weights.shape[1]
    running = np.zeros(most, np.int64)
    for i in range(target):
        center = (2 * i + 1) * length
        first = (center - support * reach - target) // (2 * target) + 1
        total = 0
        for t in range(most):
            position = first + t
            if 0 <= position < length:
                distance = abs((2 * position + 1) * target - center)
                if cubic:
                    x = min(distance * _UNIT // reach, 2 * _UNIT)
                    if x < _UNIT:
                        part = x * x * (3 * x - 5 * _UNIT) + 2 * _UNIT**3
                    else:
                        part = x * (x * (5 * _UNIT - x) - 8 * _UNIT**2) + 4 * _UNIT**3
                    total += part >> 20
                else:
                    total += max(reach - distance, 0)
            running[t] = total
        begin, end, before = -1, 0, 0
        for t in range(most):
            edge = (2 * _ONE * running[t] + total) // (2 * total)
            weight, before = edge - before, edge
            if weight != 0:
                if begin < 0:
                    begin = t
                end = t + 1
            if begin >= 0:
                weights[i, t - begin] = weight
        start[i] = first + begin
        count[i] = end - begin


@_compiled("void(uint8[:, :, :], int64, int64, int64, int64, boolean, uint8[:, :, ::1])")
def resize(
    image: NDArray[np.uint8], top: int, left: int, height: int, width: int, cubic: bool, out: NDArray[np.uint8]
) -> None:
    """Resize a box of one image into `out`: first its rows, then its columns.

    Args:
        image: uint8 [C, H, W], in any layout.
        top, left, height, width: the box, in pixels, inside the image.
        cubic: Keys' filter; else the triangle.
        out: uint8 [C, h, w], contiguous.
    """
    C, h, w = out.shape
    support = 2 if cubic else 1
    start, count = np.empty(w, np.int64), np.empty(w, np.int64)
    weights = np.empty((w, -(-2 * support * max(width, w) // w)), np.int32)
    row_taps(width, w, cubic, start, count, weights)
    wide = np.empty((C, height, w), np.uint8)
    # Rows side by side, so that each product is one of many neighbours: a processor does eight or more at once.
    beside, done = np.empty((width, C * _ROWS), np.uint8), np.empty((w, C * _ROWS), np.uint8)
    total = np.empty(C * _ROWS, np.int32)
    for y in range(0, height, _ROWS):
        rows = min(_ROWS, height - y)
        for r in range(rows):
            for k in range(C):
                line = image[k, top + y + r, left : left + width]
                for x in range(width):
                    beside[x, k * _ROWS + r] = line[x]
        for x in range(w):
            total[:] = _HALF
            for t in range(count[x]):
                weight, cells = weights[x, t], beside[start[x] + t]
                for i in range(C * _ROWS):
                    total[i] += np.int32(weight * np.int32(cells[i]))
            cells = done[x]
            for i in range(C * _ROWS):
                cells[i] = min(max(total[i] >> _SHIFT, 0), 255)
        for k in range(C):
            for r in range(rows):
                line = wide[k, y + r]
                for x in range(w):
                    line[x] = done[x, k * _ROWS + r]
    start, count = np.empty(h, np.int64), np.empty(h, np.int64)
    weights = np.empty((h, -(-2 * support * max(height, h) // h)), np.int32)
    row_taps(height, h, cubic, start, count, weights)
    sums = np.empty(w, np.int32)
    for k in range(C):
        for y in range(h):
            sums[:] = _HALF
            for t in range(count[y]):
                weight, line = weights[y, t], wide[k, start[y] + t]
                for x in range(w):
                    sums[x] += np.int32(weight * np.int32(line[x]))
            line = out[k, y]
            for x in range(w):
                line[x] = min(max(sums[x] >> _SHIFT, 0), 255)
