"""Blurs with a Gaussian of random width, as torchvision's GaussianBlur does.

Weights are whole multiples of 2^-16, made from one stored number by multiplications of whole numbers. Against
torchvision's, at the same width, a value is equal or one level off, in at most five of a hundred.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from pipeline.errors import ConfigError, DataError, Problem
from pipeline.views.keyed_random import integers, reals
from pipeline.views.operation import OperationOptions, Size
from pipeline.views.operations._chosen import change_chosen_

WIDTHS = 1024
"""Widths to draw from, at equal distances."""

_ONE = 1 << 30


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise PydanticCustomError("kernel", "is even: give an odd number of pixels")
    return value


def _widths(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1000:
        raise PydanticCustomError("sigma", "is not an interval of widths: 0 < first <= second <= 1000")
    return value


class Options(OperationOptions):
    """Declares the `kernel_size` in pixels, odd, the interval of widths, and the `probability` that a view is blurred.

    Args:
        sigma: standard deviations in pixels.
    """

    name: Literal["gaussian-blur"] = "gaussian-blur"
    kernel_size: Annotated[int, AfterValidator(_odd)] = Field(ge=1, le=255, examples=[3, 23])
    sigma: Annotated[tuple[float, float], AfterValidator(_widths)] = Field((0.1, 2.0), examples=[(1.5, 1.5)])
    probability: float = Field(1.0, ge=0, le=1, examples=[0.0, 0.5])


@functools.cache  # a thousand powers of e, the same for the same interval
def decays(sigma: tuple[float, float]) -> tuple[int, ...]:
    """Compute exp(-1 / 2σ²), the weight beside the middle one, for the widths σ to draw from: in units of 2^-30.

    In decimal arithmetic, whose exponential is rounded correctly on every machine.

    Args:
        sigma: least and largest width, in pixels.
    """
    exact = Context(prec=40)
    low, high = (Decimal(value) for value in sigma)
    count = WIDTHS if low < high else 1
    found = []
    for i in range(count):
        width = exact.add(low, exact.divide(exact.multiply(high - low, Decimal(i)), Decimal(WIDTHS - 1)))
        power = exact.exp(exact.divide(Decimal("-0.5"), exact.multiply(width, width)))
        found.append(int(exact.multiply(power, Decimal(_ONE)).to_integral_value()))
    return tuple(found)


@dataclass(frozen=True)
class GaussianBlur:
    """Blurs images with a Gaussian of `kernel_size` pixels; beyond its borders an image is mirrored.

    Column `decay`: exp(-1 / 2σ²) of the width σ, in units of 2^-30; 0 leaves a view as it is. Pixels at a distance of
    j have the weight decay^(j²).
    """

    kernel_size: int
    decays: tuple[int, ...]
    probability: float

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("decay",)
    words: ClassVar[int] = 2
    needs_sizes: ClassVar[bool] = False
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change.

        Raises ConfigError if the kernel reaches further than a mirrored image.
        """
        if size is not None and self.kernel_size // 2 >= min(size):
            what, fix = "the kernel is too large for the images", "take a smaller kernel, or put a resize before it"
            expected = f"at most {2 * min(size) - 1} for {size[0]} x {size[1]} pixels"
            raise ConfigError([Problem("kernel_size", what, expected, f"{self.kernel_size}", fix)])
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the interval of decays, widened to zero."""
        return ((0, self.decays[-1]),)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw the width from the first word, and from the second whether to blur."""
        drawn = np.array(self.decays, np.int64)[integers(words[:, 0], len(self.decays))]
        return np.where(reals(words[:, 1]) < self.probability, drawn, 0)[:, None].astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Blur the images: uint8 [B, C, H, W]. Raises DataError if the kernel is too large for them."""
        H, W = images.shape[2:]
        if self.kernel_size // 2 >= min(H, W):
            raise DataError(
                "an image is too small for the kernel of its gaussian-blur",
                expected=f"at least {self.kernel_size // 2 + 1} pixels on each side",
                got=f"{H} x {W}",
                fix="take a smaller kernel_size, or put a resize before gaussian-blur",
            )
        decay = parameters[:, 0]
        result = images.clone(memory_format=torch.contiguous_format)
        change_chosen_(result, decay > 0, self._blurred, decay)
        return result

    def _blurred(self, images: Tensor, decay: Tensor) -> Tensor:
        weights = self._weights(decay)
        # 6 bits stay after the point in between: 255 · 2^6 · 2^16 is below 2^31.
        wide = _blend(images.to(torch.int32), 3, weights).add_(1 << 9).bitwise_right_shift_(10)
        return _blend(wide, 2, weights).add_(1 << 21).bitwise_right_shift_(22).to(torch.uint8)

    def _weights(self, decay: Tensor) -> list[Tensor]:
        """Of the middle pixel, of those beside it, and so on: int32 [B], in units of 2^-16, with sum one."""
        q = decay.to(torch.int64)
        square, odd, parts = _times(q, q), q, [torch.full_like(q, _ONE)]
        for _ in range(self.kernel_size // 2):
            # From exp(-j² t) to exp(-(j + 1)² t): times exp(-(2 j + 1) t).
            parts.append(_times(parts[-1], odd))
            odd = _times(odd, square)
        total = 2 * torch.stack(parts).sum(0) - _ONE
        beside = [torch.div((part << 17) + total, 2 * total, rounding_mode="floor") for part in parts[1:]]
        middle = torch.full_like(q, 1 << 16)
        for part in beside:
            middle = middle - 2 * part
        return [part.to(torch.int32).view(-1, 1, 1, 1) for part in (middle, *beside)]


def _times(one: Tensor, other: Tensor) -> Tensor:
    """The product of numbers in units of 2^-30, rounded."""
    return (one * other + (1 << 29)) >> 30


def _blend(values: Tensor, axis: int, weights: list[Tensor]) -> Tensor:
    """Weighted sums along an axis of int32 [B, C, H, W], mirrored beyond its ends without repeating the last."""
    length, reach = values.shape[axis], len(weights) - 1
    place = torch.arange(-reach, length + reach, device=values.device).abs()
    padded = values.index_select(axis, (length - 1) - (length - 1 - place).abs())
    total = values * weights[0]
    for j, weight in enumerate(weights[1:], 1):
        both = padded.narrow(axis, reach - j, length) + padded.narrow(axis, reach + j, length)
        total.add_(both.mul_(weight))
    return total


def build(options: Options) -> GaussianBlur:
    """Make the operation that `options` describe."""
    return GaussianBlur(options.kernel_size, decays(options.sigma), options.probability)
