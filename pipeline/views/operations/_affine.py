"""Turns, shears and shifts images in fixed point: the same bytes on every device.

For each pixel of the result its place in the image is computed in whole numbers: products of coordinates and a
matrix in units of 2^-30, rounded to 2^-16 of a pixel. The centre of the image is the origin, as in torchvision's
`affine`, whose float32 is about as fine.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Sampling = Literal["nearest", "bilinear"]

ONE = 1 << 30
"""A coefficient of one."""

_PIXEL = 1 << 16
# Images of at most as many pixels on a side have places that fit int32.
_SMALL = 1 << 13


def transform(images: Tensor, matrix: Tensor, interpolation: Sampling, fill: int) -> Tensor:
    """Take each pixel at (x, y) of the result from (a x + b y + c, d x + e y + f): uint8 [B, C, H, W].

    Args:
        images: uint8 [B, C, H, W].
        matrix: int64 [B, 6], a to f in units of 2^-30; x to the right, y down, in pixels from the centre.
        interpolation: `nearest` rounds halves up, to the right and down.
        fill: the level of what lies outside.
    """
    B, C, H, W = images.shape
    x, y = _places(matrix, H, W)
    if interpolation == "nearest":
        x, y = ((place + _PIXEL // 2) >> 16 for place in (x, y))
        # Outside, one of these numbers is negative, and so is the mask; then the place is the last, which holds the
        # fill. Masks are several times as fast on a CPU as torch.where.
        outside = (x | (W - 1 - x) | y | (H - 1 - y)) >> 31
        index = y.mul_(W).add_(x)
        index = (index ^ ((index ^ (H * W)) & outside)).view(B, 1, H * W)
        padded = F.pad(images.reshape(B, C, H * W), (0, 1), value=fill)
        return padded.gather(2, index.to(torch.int64).expand(B, C, H * W)).view(B, C, H, W)
    # One pixel of fill on two sides and two on the others, so that every place has four neighbours.
    x, y = x.clamp_(-_PIXEL, W * _PIXEL), y.clamp_(-_PIXEL, H * _PIXEL)
    padded = F.pad(images, (1, 2, 1, 2), value=fill).reshape(B, C, (H + 3) * (W + 3))
    corner = ((y >> 16) + 1) * (W + 3) + (x >> 16) + 1
    right, down = (((place & (_PIXEL - 1)) >> 1).view(B, 1, H * W).to(torch.int32) for place in (x, y))
    index, rows = corner.view(B, 1, H * W).to(torch.int64), []
    for start in (0, W + 3):
        places = ((index + (start + step)).expand(B, C, H * W) for step in (0, 1))
        one, other = (padded.gather(2, place).to(torch.int32) for place in places)
        # 8 bits after the point; with the 15 of the weight a sum stays below 2^31.
        rows.append((one << 8).add_((other.sub_(one) * right).add_(64).bitwise_right_shift_(7)))
    upper, lower = rows
    total = (upper << 15).add_(lower.sub_(upper).mul_(down)).add_(1 << 22).bitwise_right_shift_(23)
    return total.to(torch.uint8).view(B, C, H, W)


def _places(matrix: Tensor, H: int, W: int) -> tuple[Tensor, Tensor]:
    """Columns and rows [B, H, W] that pixels come from, in units of 2^-16 pixel."""
    device = matrix.device
    small = torch.int32 if max(H, W) <= _SMALL else torch.int64
    across = 2 * torch.arange(W, device=device) - (W - 1)
    down = 2 * torch.arange(H, device=device) - (H - 1)
    found = []
    for (along, beside, shift), length in ((matrix[:, :3].unbind(1), W), (matrix[:, 3:].unbind(1), H)):
        columns = along[:, None] * across
        rows = beside[:, None] * down + (2 * shift + (length - 1) * ONE)[:, None]
        # In units of 2^-31 pixel until here.
        columns, rows = (((part + (1 << 14)) >> 15).to(small) for part in (columns, rows))
        found.append(columns[:, None, :] + rows[:, :, None])
    return found[0], found[1]
