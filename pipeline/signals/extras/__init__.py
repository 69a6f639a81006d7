"""Extra signals, one file each, named as in `signals.extras`: functions of a map.

An extra signal is a module with `extract(x)`: a full-resolution map [B, C, H, W] to a tensor [B, ...]. It is
applied to the teacher's map before caching and to the student's in training alike.
"""
