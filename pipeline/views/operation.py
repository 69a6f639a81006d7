"""Declares the contract of view operations: what a file of `pipeline/views/operations/` provides, and its types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from pipeline.config import Section

if TYPE_CHECKING:  # torch takes seconds, and a configuration has operations
    from torch import Tensor

Size = tuple[int, int]
"""Height and width in pixels."""


class OperationOptions(Section):
    """Is the base of every operation's `Options`, which narrow `name` to the name of their file.

    A field without a default lists values under `examples`: the contract suite runs each of them.
    """

    name: str


class Operation(Protocol):
    """Makes one step of a view: draws its parameters from random words and turns them into pixels."""

    @property
    def exact(self) -> bool:
        """Tell whether it gives the same pixels on every device, thread count and batch size."""

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Return the names of the P columns that `draw` returns."""

    @property
    def words(self) -> int:
        """Return how many random words of 64 bits one view takes."""

    @property
    def needs_sizes(self) -> bool:
        """Tell whether `draw` looks at the sizes of the images."""

    @property
    def fixes_size(self) -> bool:
        """Tell whether images of any sizes come out in one size."""

    def output_size(self, size: Size | None) -> Size | None:
        """Return the size that images of `size` come out in; None stands for sizes that differ.

        Raises ConfigError, at a key that starts from the operation's own options, if it cannot work on them.
        """

    def ranges(self, size: Size) -> tuple[tuple[int, int], ...]:
        """Return the lowest and the highest value of each parameter for images of `size`."""

    def draw(self, words: NDArray[np.uint64], sizes: NDArray[np.int64] | None) -> NDArray[np.int32]:
        """Draw parameters int32 [B, P] from `words` [B, words] and the images' heights and widths [B, 2].

        `sizes` is None only where `needs_sizes` is False. Reals are stored as float32 bit patterns.
        """

    def apply(self, images: Tensor, parameters: Tensor) -> Tensor:
        """Compute the pixels uint8 [B, C, h, w] of `images` uint8 [B, C, H, W] under `parameters` int32 [B, P].

        Out of place. Images of differing sizes come one at a time.
        """


def _checked_size(value: object) -> object:
    """Refuses what is no size with one sentence, where the union below would give one for each member."""
    parts = value if isinstance(value, list | tuple) and len(value) == 2 else [value]
    if not all(isinstance(part, int) and not isinstance(part, bool) and part > 0 for part in parts):
        raise PydanticCustomError("size", "is not a size: give one positive whole number or [height, width]")
    return value


SizeOption = Annotated[int | Size, BeforeValidator(_checked_size)]
"""A size in a configuration: one positive number, or height and width."""


ResizeFilter = Literal["bilinear", "bicubic"]
"""The filter by which an image is resized; both are antialiased."""


def is_bilinear(value: str) -> bool:
    """Tell whether this is the filter that there was before it could be chosen.

    Args:
        value: of the option.

    It is left out of what is written of an operation, so that caches of then keep their identity.
    """
    return value == "bilinear"


def square(size: int | Size) -> Size:
    """Return the size meant by an option for which one number is both height and width."""
    return (size, size) if isinstance(size, int) else size
