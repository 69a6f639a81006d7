"""Says which classes photographs show, by a student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.shipping.photographs import PhotoReader
from pipeline.shipping.student import ShippedStudent

PHOTOS_AT_ONCE = 32
"""Photographs that are held at once."""


@dataclass(frozen=True)
class Prediction:
    """Holds what a student says of one photograph.

    Args:
        photo: the file.
        logits: float32 [K]; None if it could not be read.
        error: why.
    """

    photo: Path
    logits: Tensor | None
    error: PipelineError | None = None

    def top(self, names: Sequence[str], count: int) -> list[tuple[str, float]]:
        """Return the most likely classes with their probabilities, the likeliest first.

        Args:
            names: of the classes.
            count: of those that are returned.
        """
        assert self.logits is not None
        values, places = self.logits.softmax(0).topk(min(count, len(names)))
        return [(names[k], value) for k, value in zip(places.tolist(), values.tolist(), strict=True)]


def predictions(student: ShippedStudent, photos: Iterable[Path]) -> Iterator[Prediction]:
    """Yield what a student says of each photograph, in their order; of those that cannot be read, why.

    Args:
        student: with a classifier.
        photos: image files.
    """
    reader = PhotoReader(student.model.input)
    waiting = iter(photos)
    while some := list(islice(waiting, PHOTOS_AT_ONCE)):
        views: dict[Path, Tensor] = {}
        errors: dict[Path, PipelineError] = {}
        for photo in some:
            try:
                views[photo] = reader.view(reader.read(photo))
                student.require_pixels(views[photo])
            except PipelineError as error:
                errors[photo] = error
        said: dict[Path, Tensor] = {}
        for shape in {view.shape for photo, view in views.items() if photo not in errors}:
            alike = [photo for photo, view in views.items() if view.shape == shape and photo not in errors]
            logits = student.logits(torch.cat([views[photo] for photo in alike]))
            said |= dict(zip(alike, logits, strict=True))
        yield from (Prediction(photo, said.get(photo), errors.get(photo)) for photo in some)
