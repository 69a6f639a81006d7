"""Resizes images to the same bytes on every device: by an antialiased triangle filter in fixed point.

Rows are resized first, then columns; each pass is a weighted sum of a few rows, rounded to uint8. The weights are
whole multiples of 2^-14, not negative, with sum one: every product and partial sum is a multiple of 2^-14 below
2^8, fits the 24 bits of a float32, and is exact in any order. Adding a half and truncating then rounds exactly.

A sum over the few taps that are not zero, not a matrix product with the whole row: the same numbers, several
times as fast on a CPU, and out of reach of TF32, of bfloat16 products and of autocast.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.views.operation import Size

ONE = 1 << 14
# Pixels worked on at a time: temporaries of a few megabytes stay in a CPU's cache.
_CHUNK = 1 << 19


def taps(start: Tensor, length: Tensor, longest: int, target: int) -> tuple[Tensor, Tensor]:
    """Find which pixels of a row make each of `target` pixels, and with what weights in units of 2^-14.

    `start` and `length` int64 [B] say which part of the row is resized; `longest` bounds `length`.
    Returns positions in the row and weights, int64 [B, target, T].

    In units of half a source pixel times the target's length everything is a whole number, so there is no
    rounding but that of the weights: differences of the rounded running sum, which therefore add up to one.
    """
    device = start.device
    T = -(-2 * max(longest, target) // target)
    reach = 2 * length.clamp(min=target)[:, None]
    center = (2 * torch.arange(target, device=device) + 1) * length[:, None]
    first = torch.div(center - reach - target, 2 * target, rounding_mode="floor") + 1
    position = first[:, :, None] + torch.arange(T, device=device)
    distance = ((2 * position + 1) * target - center[:, :, None]).abs()
    inside = (position >= 0) & (position < length[:, None, None])
    running = ((reach[:, :, None] - distance).clamp(min=0) * inside).cumsum(2)
    total = running[:, :, -1:]
    edges = torch.div(2 * ONE * running + total, 2 * total, rounding_mode="floor")
    weights = edges.diff(dim=2, prepend=torch.zeros_like(total))
    inner = torch.minimum(position.clamp(min=0), length[:, None, None] - 1)
    return inner + start[:, None, None], weights


def resample(images: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Resize the box of each image to `size`, (h, w): uint8 [B, C, h, w] from `images` uint8 [B, C, H, W].

    `boxes` int64 [B, 4] holds top, left, height and width in pixels, inside the image.
    """
    B, C, H, W = images.shape
    top, left, height, width = boxes.unbind(1)
    columns, rows = taps(left, width, W, size[1]), taps(top, height, H, size[0])
    step = max(1, _CHUNK // (C * max(H, size[0]) * max(W, size[1])))
    parts = []
    for i in range(0, B, step):
        part = slice(i, i + step)
        wide = _blend_rows(images[part].transpose(2, 3), columns[0][part], columns[1][part])
        parts.append(_blend_rows(wide.transpose(2, 3), rows[0][part], rows[1][part]))
    return torch.cat(parts)


def _blend_rows(images: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows, rounded: uint8 [B, C, h, L] from uint8 [B, C, R, L] and taps [B, h, T]."""
    B, C, R, L = images.shape
    _, h, T = position.shape
    row = position[:, None] + (torch.arange(B * C, device=images.device) * R).view(B, C, 1, 1)
    scale = (weights.to(torch.float32) / ONE)[:, None].expand(B, C, h, T)
    pixels = images.reshape(B * C * R, L).to(torch.float32)
    total = F.embedding_bag(row.view(-1, T), pixels, per_sample_weights=scale.reshape(-1, T), mode="sum")
    return total.add_(0.5).to(torch.uint8).view(B, C, h, L)
