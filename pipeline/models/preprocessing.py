"""Describes the images that a network expects: how they are normalised, and how they are resized to its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ModelError
from pipeline.models.kinds import kind_of
from pipeline.models.pretrained import timm_facts

PerChannel = tuple[float, ...]
"""A value for each channel of the images."""

InputSize = int | tuple[int, int]
"""The sides of a network's input in pixels: one number for a square, else height and width."""

Interpolation = Literal["bilinear", "bicubic"]


@dataclass(frozen=True)
class Preprocessing:
    """Says how images become input.

    Args:
        mean, std: of every channel, in [0, 1].
        interpolation: from other sizes.
        unserved: how the weights expect that in truth, where it is none of these; None where it is.
    """

    mean: PerChannel
    std: PerChannel
    interpolation: Interpolation
    unserved: str | None = None

    def served(self, model: str) -> Interpolation:
        """Return the interpolation of a model that names none. Raises ModelError if it is none of those that there are.

        Args:
            model: its name.
        """
        if self.unserved is None:
            return self.interpolation
        raise ModelError(
            f"the weights of {model} expect images that are resized in another way than there is here",
            where="interpolation",
            expected="bilinear or bicubic",
            got=self.unserved,
            fix="name `interpolation: bilinear` if that will do: images of `input_size` are not resized in any case",
        )


NEUTRAL = Preprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")
"""Of networks that begin with random weights, and of models whose weights timm does not have."""


def preprocessing_of(model: str) -> Preprocessing:
    """Return what its library's weights of a model expect. Raises ModelError if there is no such model."""
    if (kind := kind_of(model)) is not None:
        return kind.expects(model)
    cfg = timm_facts(model)
    if not cfg:
        return NEUTRAL
    try:
        mean, std = _three(cfg["mean"]), _three(cfg["std"])
    except (KeyError, TypeError, ValueError) as error:  # of a file that somebody wrote
        what = f"{model} does not say how its images are normalised"
        raise ModelError(what, got=f"{type(error).__name__}: {error}", fix="name `mean` and `std`") from None
    return Preprocessing(mean, std, "bicubic" if cfg.get("interpolation") == "bicubic" else "bilinear")


def as_input_size(size: int | Sequence[int]) -> InputSize:
    """Return a size in the form that identities have: equal sides are one number."""
    if isinstance(size, int):
        return size
    height, width = (int(side) for side in size)
    return height if height == width else (height, width)


def height_and_width(size: InputSize) -> tuple[int, int]:
    """Return the sides of an input.

    Args:
        size: in pixels, one number for a square.
    """
    return (size, size) if isinstance(size, int) else size


def _three(values: tuple[float, ...]) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
