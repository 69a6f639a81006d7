"""Erases a random rectangle: fills it with one level, one colour, or noise.

Zhong et al., Random Erasing Data Augmentation, arXiv 1708.04896; drawn as torchvision's RandomErasing does: ten
tries, and nothing is erased if none fits. Noise is uniform over the 256 levels (torchvision's is normal, for images
that are normalised already).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from torch import Tensor

from pipeline.errors import DataError
from pipeline.views.keyed_random import integers, reals
from pipeline.views.operation import OperationOptions, Size
from pipeline.views.operations._boxes import TRIES, Ratio, Scale, draw_sides
from pipeline.views.operations._chosen import change_chosen_, constants, select_bytes

_SEEDS = 2**31


def _checked(value: object) -> object:
    parts = value if isinstance(value, list | tuple) else [value]
    levels = all(isinstance(part, int) and not isinstance(part, bool) and 0 <= part <= 255 for part in parts)
    if value != "random" and not (parts and levels):
        raise PydanticCustomError(
            "value", "is no value to erase with: give a level of 0 to 255, one level for each channel, or random"
        )
    return value


class Options(OperationOptions):
    """Declares the `probability` that a view loses a rectangle, its part of the area and its proportions.

    Args:
        scale: the interval of areas, as parts of the image.
        ratio: that of heights by widths.
        value: what the rectangle is filled with: one level, a list of one for each channel, or `random`: noise.
    """

    name: Literal["random-erasing"] = "random-erasing"
    probability: float = Field(0.5, ge=0, le=1, examples=[1.0])
    scale: Scale = Field((0.02, 0.33), examples=[(0.5, 0.9)])
    ratio: Ratio = Field((0.3, 3.3), examples=[(1.0, 1.0)])
    value: Annotated[int | tuple[int, ...] | Literal["random"], BeforeValidator(_checked)] = Field(
        0, examples=[128, "random"]
    )


@dataclass(frozen=True)
class RandomErasing:
    """Fills a rectangle of an image with `value`: a level, one level for each channel, or noise.

    Columns `top`, `left`, `height` and `width` of the rectangle, in pixels; all are 0 where nothing is erased. Column
    `noise`, only if `value` is `random`: the seed of the noise. With m(x) the last step of MurmurHash3 (32 bits), the
    pixel at row y, column x and channel c gets the lower eight bits of m(m(seed) + (c H + y) W + x).
    """

    probability: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    value: int | tuple[int, ...] | Literal["random"]

    exact: ClassVar[bool] = True
    words: ClassVar[int] = 2 * TRIES + 4
    needs_sizes: ClassVar[bool] = True
    fixes_size: ClassVar[bool] = False

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the rectangle's columns, and that of the noise."""
        return ("top", "left", "height", "width") + (("noise",) if self.value == "random" else ())

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the corners and sizes of rectangles inside the image."""
        H, W = size
        box = ((0, H - 1), (0, W - 1), (0, H - 1), (0, W - 1))
        return box + (((0, _SEEDS - 1),) if self.value == "random" else ())

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw areas from ten words, proportions from ten, then whether to erase, the corner and the noise."""
        assert sizes is not None
        H, W = sizes[:, 0], sizes[:, 1]
        widths, heights = draw_sides(words[:, : 2 * TRIES], sizes, self.scale, self.ratio)
        fits = (heights >= 1) & (heights < H[:, None]) & (widths >= 1) & (widths < W[:, None])
        erased = fits.any(1) & (reals(words[:, 2 * TRIES]) < self.probability)
        chosen = fits.argmax(1)[:, None]
        height, width = (np.where(erased, np.take_along_axis(sides, chosen, 1)[:, 0], 0) for sides in (heights, widths))
        top, left = (
            np.where(erased, integers(words[:, 2 * TRIES + 1 + i], length - side + 1), 0)
            for i, (length, side) in enumerate(((H, height), (W, width)))
        )
        columns = [top, left, height, width]
        if self.value == "random":
            columns.append(np.where(erased, integers(words[:, -1], _SEEDS), 0))
        return np.stack(columns, 1).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Fill the rectangles: uint8 [B, C, H, W]. Raises DataError if the value is for another number of channels."""
        result = images.clone(memory_format=torch.contiguous_format)
        fill = self._noisy if self.value == "random" else self._constant
        change_chosen_(result, parameters[:, 2] > 0, fill, parameters)
        return result

    def _noisy(self, images: Tensor, parameters: Tensor) -> Tensor:
        B, C, H, W = images.shape
        places = torch.arange(C * H * W, dtype=torch.int32, device=images.device)
        return select_bytes(_inside(parameters, H, W), _noise(parameters[:, 4:], places).view(B, C, H, W), images)

    def _constant(self, images: Tensor, parameters: Tensor) -> Tensor:
        levels = (self.value,) if isinstance(self.value, int) else self.value
        if len(levels) not in (1, images.shape[1]):
            raise DataError(
                "what random-erasing fills with has another number of channels than the images",
                where="random-erasing.value",
                expected=f"1 or {images.shape[1]} levels",
                got=f"{len(levels)}",
                fix="give one level for each channel, or one for all",
            )
        value = constants(levels, images, torch.uint8).view(1, -1, 1, 1)
        return select_bytes(_inside(parameters, *images.shape[2:]), value, images)


def _inside(parameters: Tensor, H: int, W: int) -> Tensor:
    """Which pixels lie in the rectangle: bool [B, 1, H, W]."""
    top, left, height, width = parameters[:, :4, None].unbind(1)
    rows, columns = (torch.arange(length, device=parameters.device) for length in (H, W))
    down = (rows >= top) & (rows < top + height)
    across = (columns >= left) & (columns < left + width)
    return (down[:, :, None] & across[:, None])[:, None]


def _noise(seeds: Tensor, places: Tensor) -> Tensor:
    """Levels that follow from a seed [B, 1] and a place in the image [N], counted in C, H, W order: uint8 [B, N].

    A hash of both in 32 bits, by MurmurHash3's last step: x ^= x >> 16, x *= 0x85ebca6b, x ^= x >> 13,
    x *= 0xc2b2ae35, x ^= x >> 16. The seed is mixed, the place is added, the sum is mixed again, and the lower
    eight bits are the level. Products and sums keep their lower 32 bits, as int32 does.
    """
    return _mix_(_mix_(seeds.clone()) + places).bitwise_and_(0xFF).to(torch.uint8)


def _mix_(x: Tensor) -> Tensor:
    """The hash's step, in place."""
    # An int32 shifts its sign in, which the masks take out.
    x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF)).mul_(0x85EBCA6B - 2**32)
    x.bitwise_xor_((x >> 13).bitwise_and_(0x7FFFF)).mul_(0xC2B2AE35 - 2**32)
    return x.bitwise_xor_((x >> 16).bitwise_and_(0xFFFF))


def build(options: Options) -> RandomErasing:
    """Make the operation that `options` describe."""
    return RandomErasing(options.probability, options.scale, options.ratio, options.value)
