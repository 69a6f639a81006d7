"""Low-pass filters, one file each, named as in `signals.features.filter`.

A filter is a module with `lowpass(x, grid_h, grid_w)`: maps [B, C, H, W] of any floating type to
[B, C, grid_h, grid_w] with grid_h <= H and grid_w <= W, in at least float32, linear in `x`, keeping constants
as they are, differentiable. `tests/contracts/test_filters.py` finds every file.
"""
