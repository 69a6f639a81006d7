"""Finds rows that have certain values."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def anywhere(found: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell for each row of the mask `found` [R, ...] whether it is true anywhere: bool [R]."""
    return np.asarray(found.reshape(len(found), -1).any(axis=1))


def not_finite(rows: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell for each row of numbers [R, ...] whether some are not finite: bool [R].

    Args:
        rows: of any float.
    """
    return anywhere(~np.isfinite(rows))
