"""Changes colours in whole numbers: brightness, contrast, saturation, hue and greys.

Each function takes images uint8 [B, C, H, W], and where it says so one factor for each image, int32 [B] in units of
1 / 65536, and returns uint8 of the same shape. The results are those of torchvision's functions of the same names
on uint8 tensors, but where these round in float32: there a value may be off by one level.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import DataError

ONE = 1 << 16
"""The factor 1, which leaves an image as it is; of hues, the full circle."""

LARGEST_FACTOR = 16
"""Above it, sums would leave the 32 bits that they are computed in."""

# 0.2989, 0.587 and 0.114, as in torchvision: their sum is 0.9999.
_RED, _GREEN, _BLUE = 19589, 38470, 7471


def require_colors(images: Tensor, name: str) -> None:
    """Raise DataError if the images have neither one channel nor three.

    Args:
        images: [B, C, H, W].
        name: of the operation, for the error.
    """
    if images.shape[1] not in (1, 3):
        raise DataError(
            f"{name} knows no colours in such images",
            expected="1 channel (grey) or 3 (red, green, blue)",
            got=f"{images.shape[1]} channels",
            fix=f"remove {name} from the operations",
        )


def greys(images: Tensor) -> Tensor:
    """Compute the grey of each pixel, rounded down: int32 [B, 1, H, W]. Images of one channel are grey already.

    Args:
        images: uint8 [B, C, H, W].
    """
    if images.shape[1] == 1:
        return images.to(torch.int32)
    red, green, blue = images.to(torch.int32).unbind(1)
    total = (red * _RED).add_(green, alpha=_GREEN).add_(blue, alpha=_BLUE)
    return total.bitwise_right_shift_(16).unsqueeze(1)


def grayscale(images: Tensor) -> Tensor:
    """Make all channels the grey of the pixel.

    Args:
        images: uint8 [B, C, H, W].
    """
    return greys(images).to(torch.uint8).expand_as(images)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply pixels by the factor.

    Args:
        images: uint8 [B, C, H, W].
        factor: of each image, int [B], in units of 2^-16.
    """
    return _levels((images * _each(factor)).bitwise_right_shift_(16))


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from the mean grey of their image by the factor, or towards it.

    Args:
        images: uint8 [B, C, H, W].
        factor: of each image, int [B], in units of 2^-16.
    """
    grey = greys(images)
    mean = grey.sum((1, 2, 3), dtype=torch.int64) * (ONE - factor)
    offset = torch.div(mean, grey[0].numel(), rounding_mode="floor").to(torch.int32)
    return _levels((images * _each(factor)).add_(_each(offset)).bitwise_right_shift_(16))


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move pixels away from their own grey by the factor, or towards it. Images of one channel stay as they are.

    Args:
        images: uint8 [B, C, H, W].
        factor: of each image, int [B], in units of 2^-16.
    """
    if images.shape[1] == 1:
        return images
    grey = greys(images).mul_(_each(ONE - factor))
    return _levels((images * _each(factor)).add_(grey).bitwise_right_shift_(16))


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn hues by `shift`, of which 65536 is the full circle. Images of one channel stay as they are.

    A hue is kept as position times range: with range d = largest - least of the three colours, the circle is 6 d
    long and every corner of it lies at a whole multiple of d. So nothing is divided, and a turn by 0 is exact.

    Args:
        images: uint8 [B, C, H, W].
        shift: of each image, int [B]; 65536 is the full circle.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.to(torch.int32).unbind(1)
    largest = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    d = largest - least
    # Choices by masks, -1 or 0, from the sign of differences: several times as fast on a CPU as torch.where.
    position = _chosen(green - largest, red - green + 4 * d, blue - red + 2 * d)
    position = _chosen(red - largest, position, green - blue)
    turned = d * (6 * shift.to(torch.int32).view(-1, 1, 1))
    d <<= 16
    position = (position << 16).add_(turned)
    circle = 6 * d
    position += circle & (position >> 31)
    position -= circle
    position += circle & (position >> 31)
    zero, base = torch.zeros_like(d), least << 16
    parts = [
        (position - 3 * d).abs_().sub_(d),
        2 * d - (position - 2 * d).abs_(),
        2 * d - (position - 4 * d).abs_(),
    ]
    total = torch.stack([torch.minimum(torch.maximum(part, zero), d).add_(base) for part in parts], 1)
    # torchvision multiplies by 255.999 / 255 before it rounds down: 1 + 8216 / 2^21.
    return total.add_((total >> 8).mul_(8216).bitwise_right_shift_(13)).bitwise_right_shift_(16).to(torch.uint8)


def _chosen(difference: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """Values of `one` where the difference is negative, of `other` elsewhere: int32."""
    return other ^ ((one ^ other) & (difference >> 31))


def _each(values: Tensor) -> Tensor:
    """One value for each image, int32, ready to be multiplied with [B, C, H, W]."""
    return values.to(torch.int32).view(-1, 1, 1, 1)


def _levels(values: Tensor) -> Tensor:
    """Clamped to the 256 levels."""
    return values.clamp_(0, 255).to(torch.uint8)
