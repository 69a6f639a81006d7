"""Draws new views in every epoch, for training without a teacher."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.data import Images, Samples
from pipeline.training.teacher_outputs import TeacherOutputs, Upcoming
from pipeline.views import Views, sizes_of


class FreshViews:
    """Draws new views in every epoch, and has no outputs of a teacher: for training on labels alone.

    views: the operations and the seed that views are drawn by. samples: the samples to train on.
    """

    def __init__(self, views: Views, samples: Samples) -> None:
        self.views, self.samples = views, samples

    @property
    def remote(self) -> bool:
        """Return False, since nothing is fetched."""
        return False

    def expect(self, upcoming: Upcoming) -> None:
        """Do nothing with `upcoming`, since nothing is fetched."""

    def parameters(self, view: int, samples: NDArray[np.int64], images: Images) -> NDArray[np.int32]:
        """Draw the parameters [B, P] of a view, for samples [B]: they depend on their positions in the split.

        images: of these samples; their sizes count where an operation needs them.
        """
        sizes = sizes_of(images) if self.views.needs_sizes else None
        return self.views.parameters(view, self.samples.positions[samples], sizes)

    def teacher_outputs(self, view: int, samples: NDArray[np.int64], images: Tensor) -> TeacherOutputs | None:
        """Return None, since there is no teacher."""
        return None
