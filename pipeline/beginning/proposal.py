"""Proposes a teacher for images by their size."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.beginning.survey import Survey

SMALL = 64
"""Images with sides up to this many pixels get the networks for small images, which need no pretrained weights."""


@dataclass(frozen=True)
class Chosen:
    """Describes a teacher that is proposed, and what is kept of it.

    Args:
        model: by timm's name.
        input_size: in pixels.
        width: of its embedding.
        kept: numbers of a view's maps, on a grid of 4 x 4.
        macs: multiply-adds for one image.
        named: whether the user named the model; width, kept and macs are then another's.
    """

    model: str
    input_size: int
    width: int
    kept: int
    macs: float
    named: bool = False


def small_images(survey: Survey) -> bool:
    """Tell whether images with labels are so small that a teacher for them is trained from random weights.

    Args:
        survey: of the images.
    """
    return survey.labeled and survey.shorter_side <= SMALL


def teacher_for(survey: Survey, model: str | None) -> Chosen:
    """Choose a teacher by the size of the images.

    Args:
        survey: of the images.
        model: that is wanted; None chooses.
    """
    named = model is not None
    if small_images(survey):
        seen = max(16, survey.shorter_side)
        return Chosen(model or "cifar_resnet20", seen, 64, (32 + 64) * 16, 41e6 * (seen / 32) ** 2, named)
    return Chosen(model or "resnet50", 224, 2048, 2048 * 16, 4.1e9, named)
