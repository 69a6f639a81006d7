"""Holds low-pass filters, one file each, named as in `signals.features.filter`.

A filter is a module with `lowpass(x, grid_h, grid_w)`: maps [B, C, H, W] of any floating type to
[B, C, grid_h, grid_w] with grid_h <= H and grid_w <= W, one of them smaller, in at least float32, linear in `x`,
keeping constants as they are, differentiable. All channels are filtered alike, each by itself: so a linear map of
channels, such as a linear head, may be applied before or after. `tests/contracts/test_filters.py` finds every file.
"""

from __future__ import annotations

from pipeline.factories import Computation, tensors

FACTORY = Computation("lowpass", ("x", "grid_h", "grid_w"), tensors, "decant.filters")
"""What filters are that lie outside of this folder: functions."""
