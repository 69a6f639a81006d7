"""Rows in which something is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def anywhere(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether it is anywhere in each row of [R, ...]: [R]."""
    return np.asarray(found.reshape(len(found), -1).any(axis=1))


def not_finite(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows [R, ...] of numbers that are not all finite: [R]."""
    return anywhere(~np.isfinite(rows))
