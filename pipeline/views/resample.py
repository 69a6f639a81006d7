"""Resizes images to the same bytes on every device: by antialiased filters in fixed point.

Rows are resized first, then columns; each pass is a weighted sum of a few rows, rounded to uint8. The weights are
whole multiples of 2^-14 with sum one, and their magnitudes add up to less than two: every product and partial sum
is a multiple of 2^-14 below 2^9, fits the 24 bits of a float32, and is exact in any order. Adding a half and
rounding down then rounds exactly.

A sum over the few taps that are not zero, not a matrix product with the whole row: the same numbers, several
times as fast on a CPU, and out of reach of TF32, of bfloat16 products and of autocast.

Large images on a CPU are resized by `compiled_resample.py`, in whole numbers: the same bytes, in a fraction of the
time. Where numba is missing, and for all other images, torch does it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.views.operation import ResizeFilter, Size

ONE = 1 << 14
# Pixels worked on at a time: temporaries of a few megabytes stay in a CPU's cache. Another device has none to stay in,
# and waits for every operation that it is given: there, few chunks.
_CHUNK_ON_CPU, _CHUNK_ELSEWHERE = 1 << 19, 1 << 26
LARGE_IMAGE = 1 << 15
"""Pixels of an image, or of what is made of it, from which on compiled loops resize it: there torch's way takes so long
that it is worth half a second to load them. Batches of small images gain nothing."""

# Of distances in `_cubic`: 16 bits after the point.
_UNIT = 1 << 16


def taps(
    start: Tensor, length: Tensor, longest: int, target: int, interpolation: ResizeFilter = "bilinear"
) -> tuple[Tensor, Tensor]:
    """Find which pixels of a row make each of `target` pixels, and with what weights in units of 2^-14.

    Args:
        interpolation: the filter.

    `start` and `length` int64 [B] say which part of the row is resized; `longest` bounds `length`.
    Returns positions in the row and weights, int64 [B, target, T].

    In units of half a source pixel times the target's length everything is a whole number, so there is no
    rounding but that of the weights: differences of the rounded running sum, which therefore add up to one.
    """
    device = start.device
    support = 2 if interpolation == "bicubic" else 1
    T = -(-2 * support * max(longest, target) // target)
    reach = 2 * length.clamp(min=target)[:, None]
    center = (2 * torch.arange(target, device=device) + 1) * length[:, None]
    first = torch.div(center - support * reach - target, 2 * target, rounding_mode="floor") + 1
    position = first[:, :, None] + torch.arange(T, device=device)
    distance = ((2 * position + 1) * target - center[:, :, None]).abs()
    inside = (position >= 0) & (position < length[:, None, None])
    shape = _cubic if interpolation == "bicubic" else _triangle
    running = (shape(distance, reach[:, :, None]) * inside).cumsum(2)
    total = running[:, :, -1:]
    edges = torch.div(2 * ONE * running + total, 2 * total, rounding_mode="floor")
    weights = edges.diff(dim=2, prepend=torch.zeros_like(total))
    inner = torch.minimum(position.clamp(min=0), length[:, None, None] - 1)
    return inner + start[:, None, None], weights


def _triangle(distance: Tensor, reach: Tensor) -> Tensor:
    """Compute the filter that falls to zero within one reach, as a straight line."""
    return (reach - distance).clamp(min=0)


def _cubic(distance: Tensor, reach: Tensor) -> Tensor:
    """Compute Keys' cubic filter with a = -1/2, as in Pillow and torch, which falls to zero within two reaches.

    Its values are in units of 2^-29, of distances rounded down to units of 2^-16.
    """
    x = torch.div(distance * _UNIT, reach, rounding_mode="floor").clamp(max=2 * _UNIT)
    near = x * x * (3 * x - 5 * _UNIT) + 2 * _UNIT**3
    far = x * (x * (5 * _UNIT - x) - 8 * _UNIT**2) + 4 * _UNIT**3
    return torch.where(x < _UNIT, near, far) >> 20


def resample(images: Tensor, boxes: Tensor, size: Size, interpolation: ResizeFilter = "bilinear") -> Tensor:
    """Resize the box of each image to `size`, (h, w): uint8 [B, C, h, w] from `images` uint8 [B, C, H, W].

    Args:
        interpolation: the filter.

    `boxes` int64 [B, 4] holds top, left, height and width in pixels, inside the image; IndexError is raised for others.
    """
    H, W = images.shape[2:]
    if max(H * W, size[0] * size[1]) >= LARGE_IMAGE and images.device.type == "cpu" and (resize := _compiled_resize()):
        return _by_loops(resize, images, boxes, size, interpolation)
    return resample_by_torch(images, boxes, size, interpolation)


def resample_by_torch(images: Tensor, boxes: Tensor, size: Size, interpolation: ResizeFilter = "bilinear") -> Tensor:
    """Resize boxes as `resample` does, by torch alone: on every device, and what the compiled loops are held to.

    Args:
        images: uint8 [B, C, H, W].
        boxes: int64 [B, 4], top, left, height and width in pixels.
        size: height and width of the result.
        interpolation: the filter.
    """
    if len(images) == 1 and images.device.type == "cpu":
        # A single, often large, image: cut first, so that only what is used is worked on.
        top, left, height, width = boxes[0].tolist()
        images = images[:, :, top : top + height, left : left + width]
        boxes = torch.tensor([[0, 0, height, width]])
    B, C, H, W = images.shape
    top, left, height, width = boxes.unbind(1)
    columns = taps(left, width, W, size[1], interpolation)
    rows = taps(top, height, H, size[0], interpolation)
    chunk = _CHUNK_ON_CPU if images.device.type == "cpu" else _CHUNK_ELSEWHERE
    step = max(1, chunk // (C * max(H, size[0]) * max(W, size[1])))
    parts = []
    for i in range(0, B, step):
        part = slice(i, i + step)
        wide = _blend_rows(images[part].transpose(2, 3), columns[0][part], columns[1][part])
        parts.append(_blend_rows(wide.transpose(2, 3), rows[0][part], rows[1][part]))
    return torch.cat(parts)


def _by_loops(
    resize: Callable[..., None], images: Tensor, boxes: Tensor, size: Size, interpolation: ResizeFilter
) -> Tensor:
    corner, length = boxes[:, :2], boxes[:, 2:]
    wrong = (corner < 0) | (length < 1) | (corner + length > torch.tensor(images.shape[2:]))
    if wrong.any():  # the loops do not look where they read
        raise IndexError("a box is not inside its image")
    pixels = np.empty((*images.shape[:2], *size), np.uint8)
    for image, box, out in zip(images.numpy(), boxes.tolist(), pixels, strict=True):
        resize(image, *box, interpolation == "bicubic", out)
    return torch.from_numpy(pixels)


@cache
def _compiled_resize() -> Callable[..., None] | None:
    """Load the compiled loops; None where they cannot be had, which is said once if numba is there."""
    if find_spec("numba") is None:
        return None
    try:
        from pipeline.views.compiled_resample import resize

        resize(np.zeros((1, 1, 1), np.uint8), 0, 0, 1, 1, False, np.empty((1, 1, 1), np.uint8))
    except Exception as error:
        warnings.warn(f"large images are resized slowly, because numba fails: {error}", stacklevel=2)
        return None
    return resize


def _blend_rows(images: Tensor, position: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of rows, rounded: uint8 [B, C, h, L] from uint8 [B, C, R, L] and taps [B, h, T]."""
    B, C, R, L = images.shape
    _, h, T = position.shape
    row = position[:, None] + (torch.arange(B * C, device=images.device) * R).view(B, C, 1, 1)
    scale = (weights.to(torch.float32) / ONE)[:, None].expand(B, C, h, T)
    pixels = images.reshape(B * C * R, L).to(torch.float32)
    total = F.embedding_bag(row.view(-1, T), pixels, per_sample_weights=scale.reshape(-1, T), mode="sum")
    # Clamped, because a cubic filter leaves the range on both sides of an edge; then truncating rounds down.
    return total.add_(0.5).clamp_(0, 255).to(torch.uint8).view(B, C, h, L)
