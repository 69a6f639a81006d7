"""Renders views of samples: reads the images that each is made of, draws its parameters, applies the operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data.split import Images
from pipeline.views.views import Views, sizes_of

if TYPE_CHECKING:
    from pipeline.data import Samples


class DrawnViews(NamedTuple):
    """Holds views of B samples: what was drawn for each, int32 [B, P], and its pixels, uint8 [B, C, H, W]."""

    parameters: NDArray[np.int32]
    pixels: Tensor


def view_of(samples: Samples, view: int, rows: NDArray[np.int64]) -> str:
    """Name a view of samples, for messages: their ids, or the first of them.

    Args:
        samples: those that there are.
        view: its number.
        rows: the numbers of the samples [B].
    """
    return f"view {view} of samples {', '.join(samples.ids(rows[:5]))}{', ...' if len(rows) > 5 else ''}"


class SampleViews:
    """Renders views of samples by their numbers 0..N-1. Where views mix, it finds and reads the partners too.

    Args:
        read: reads images by these numbers; default, `samples.read`.
    """

    def __init__(
        self, samples: Samples, views: Views, read: Callable[[NDArray[np.int64]], Images] | None = None
    ) -> None:
        self.samples, self.views, self._read = samples, views, read or samples.read

    def parameters(self, view: int, rows: NDArray[np.int64], images: Images | None = None) -> NDArray[np.int32]:
        """Draw view number `view` of samples [B]: int32 [B, P].

        Args:
            images: theirs, if they were read already.
            rows: the samples.
        """
        return self._parameters(view, rows, images)[0]

    def draw(self, view: int, rows: NDArray[np.int64], images: Images | None = None) -> DrawnViews:
        """Draw view number `view` of samples [B], and render it.

        Args:
            images: theirs, if they were read already.
            rows: the samples.
        """
        images = self._read(rows) if images is None else images
        parameters, partners = self._parameters(view, rows, images)
        if partners is None:
            partners = self._partners(parameters)
        return DrawnViews(parameters, self.views.apply(images, parameters, partners))

    def render(self, rows: NDArray[np.int64], parameters: NDArray[np.int32], images: Images | None = None) -> Tensor:
        """Render views of samples [B] from their parameters [B, P]: uint8 [B, C, H, W].

        Args:
            rows: the samples.
            images: theirs, if they were read already.

        Raises DataError if the parameters are none of these views, or if a view is mixed with an image that is none of
        the samples.
        """
        images = self._read(rows) if images is None else images
        return self.views.apply(images, parameters, self._partners(parameters))

    def mixed_with(self, parameters: NDArray[np.int32]) -> NDArray[np.int64] | None:
        """Return the numbers [B] of the samples that these views [B, P] are mixed with; None without mixing.

        Args:
            parameters: as `parameters` returns them.
        """
        positions = self.views.partners_in(parameters)
        return None if positions is None else self.samples.at(positions)

    def _partners(self, parameters: NDArray[np.int32]) -> Images | None:
        """The images that views are mixed with; None without mixing, or if the parameters are none of these views."""
        if parameters.shape[1:] != (len(self.views.parameter_names),):
            return None  # `apply` says it
        others = self.mixed_with(parameters)
        return None if others is None else self._read(others)

    def _parameters(
        self, view: int, rows: NDArray[np.int64], images: Images | None
    ) -> tuple[NDArray[np.int32], Images | None]:
        """What is drawn, and the partners' images if they had to be read for their sizes."""
        positions = self.samples.positions[rows]
        if not self.views.needs_sizes:
            return self.views.parameters(view, positions), None
        sizes = sizes_of(self._read(rows) if images is None else images)
        if self.views.mixing is None:
            return self.views.parameters(view, positions, sizes), None
        partners = self._read(self.samples.at(self.views.partners.of(view, positions)))
        return self.views.parameters(view, positions, sizes, sizes_of(partners)), partners
