"""Changes levels, which needs no colours, in whole numbers: as torchvision's functions of the same names on uint8.

Each takes images uint8 [B, C, H, W] and returns uint8 of the same shape.
"""

from __future__ import annotations

import torch
from torch import Tensor


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from the mean of their neighbours by the factor, int32 [B] in units of 1 / 65536.

    The pixel itself counts five times. Pixels at the border, and images of at most two pixels on a side, stay.
    """
    H, W = images.shape[2:]
    if H <= 2 or W <= 2:
        return images
    values = images.to(torch.int16)
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    inner = values[:, :, 1:-1, 1:-1]
    total = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]).add_(inner, alpha=4).to(torch.int32)
    # (2 total + 13) // 26, the mean rounded to the nearest: 161320 / 2^22 is near enough to 1 / 26 for all totals.
    mean = total.mul_(2).add_(13).mul_(161320).bitwise_right_shift_(22)
    moved = mean.sub_(inner).mul_(((1 << 16) - factor).to(torch.int32).view(-1, 1, 1, 1)).bitwise_right_shift_(16)
    result = images.clone()
    result[:, :, 1:-1, 1:-1] = moved.add_(inner).clamp_(0, 255).to(torch.uint8)
    return result


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper `bits` [B] of each value.

    Args:
        images: uint8 [B, C, H, W].
        bits: [B], 1 to 8.
    """
    return images & (0xFF00 >> bits & 0xFF).to(torch.uint8).view(-1, 1, 1, 1)


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert values of at least `threshold` [B], 0 to 255.

    Args:
        images: uint8 [B, C, H, W].
        threshold: [B], 0 to 255.
    """
    light = images >= threshold.to(torch.uint8).view(-1, 1, 1, 1)
    # 255 less a value is that value with all bits flipped.
    return images ^ light.view(torch.uint8).neg()


def autocontrast(images: Tensor) -> Tensor:
    """Stretch the levels of each channel to all of 0 to 255. Channels of one level stay.

    Args:
        images: uint8 [B, C, H, W].
    """
    flat = images.flatten(2)
    low, high = (value.to(torch.int32)[:, :, None] for value in (flat.amin(2), flat.amax(2)))
    levels = torch.arange(256, dtype=torch.int32, device=images.device)
    stretched = torch.div((levels - low).clamp(min=0) * 255, (high - low).clamp(min=1), rounding_mode="floor")
    return _look_up(images, torch.where(high > low, stretched.clamp(max=255), levels))


def equalize(images: Tensor) -> Tensor:
    """Spread the levels of each channel so that all are about equally frequent, as Pillow does.

    Args:
        images: uint8 [B, C, H, W].
    """
    B, C, H, W = images.shape
    flat = images.reshape(B, C, H * W).to(torch.int64)
    counts = torch.zeros((B, C, 256), dtype=torch.int32, device=images.device)
    counts.scatter_add_(2, flat, torch.ones_like(counts[:, :, :1]).expand(B, C, H * W))
    running = counts.cumsum(2, dtype=torch.int32)
    # The number of pixels that have not the largest level, over 255.
    brightest = counts.gather(2, images.flatten(2).amax(2, keepdim=True).to(torch.int64))
    step = torch.div(H * W - brightest, 255, rounding_mode="floor")
    spread = torch.div(running - counts + step // 2, step.clamp(min=1), rounding_mode="floor").clamp_(0, 255)
    levels = torch.arange(256, dtype=torch.int32, device=images.device)
    table = torch.where(step > 0, spread, levels)
    return table.to(torch.uint8).gather(2, flat).view(B, C, H, W)


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Each value's entry in the table of its channel, [B, C, 256]."""
    index = images.flatten(2).to(torch.int64)
    return table.to(torch.uint8).gather(2, index).view(images.shape)
