"""Draws new views in every epoch, for training without a teacher."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.training.encoded_outputs import TeacherOutputs
from pipeline.training.teacher_outputs import Upcoming


class FreshViews:
    """Has views drawn anew in every epoch, and no outputs of a teacher: for training on labels alone."""

    @property
    def remote(self) -> bool:
        """Return False, since nothing is fetched."""
        return False

    def expect(self, upcoming: Upcoming) -> None:
        """Do nothing with `upcoming`, since nothing is fetched."""

    def parameters(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.int32] | None:
        """Return None, since nothing is stored: views are drawn when they are rendered."""
        return None

    def teacher_outputs(self, view: int, samples: NDArray[np.int64], images: Tensor) -> TeacherOutputs | None:
        """Return None, since there is no teacher."""
        return None
