"""Turns by a random number of quarter turns: for images without an up and down, such as those from above."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import DataError
from pipeline.views.keyed_random import integers
from pipeline.views.operation import OperationOptions, Size
from pipeline.views.operations._chosen import change_chosen_


class Options(OperationOptions):
    """Declares no options: all turns that keep the size of an image are equally likely."""

    name: Literal["rotate90"] = "rotate90"


@dataclass(frozen=True)
class Rotate90:
    """Turns images by quarters, those that are not square by halves.

    Column `turns`: quarter turns to the left, 0 to 3; 0 or 2 where an image is not square.
    """

    exact: ClassVar[bool] = True
    parameter_names: ClassVar[tuple[str, ...]] = ("turns",)
    words: ClassVar[int] = 1
    needs_sizes: ClassVar[bool] = True
    fixes_size: ClassVar[bool] = False

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size of the images: it does not change."""
        return size

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return zero and three quarters, or two quarters of what is not square."""
        return ((0, 3 if size[0] == size[1] else 2),)

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw one of four turns, or of two where height and width differ."""
        assert sizes is not None
        square = sizes[:, :1] == sizes[:, 1:]
        return np.where(square, integers(words, 4), 2 * integers(words, 2)).astype(np.int32)

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Turn to the left: uint8 [B, C, H, W]. Raises DataError for a quarter turn of what is not square."""
        turns, (H, W) = parameters[:, 0], images.shape[2:]
        if H != W and parameters.device.type == "cpu" and bool((turns % 2 == 1).any()):
            raise DataError(
                "an image that is not square cannot be turned by a quarter",
                where="rotate90.turns",
                expected="0 or 2",
                got=f"{int(turns[turns % 2 == 1][0])}, for an image of {H} x {W} pixels",
                fix="these parameters were drawn for other images",
            )
        result = images.clone(memory_format=torch.contiguous_format)
        for quarters in (1, 2, 3) if H == W else (2,):
            change_chosen_(result, turns == quarters, partial(torch.rot90, k=quarters, dims=(2, 3)))
        return result


def build(options: Options) -> Rotate90:
    """Make the operation that `options` describe."""
    return Rotate90()
