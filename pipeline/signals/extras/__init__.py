"""Holds extra signals, one file each, named as in `signals.extras`: small functions of full maps.

`channel-gram/block3` is what the file `channel_gram.py` makes of the map at the tap `block3`. A file provides `MAPS`,
the number of maps that it reads, that of the tap and, beyond it, of the next deeper blocks; and `extract(*maps)`: maps
[B, C, H, W], in at least float32, to a tensor [B, ...], every sample by itself, differentiable, finite for maps of
zeros. It is applied to the teacher's maps before caching, and to the student's in training alike
(`pipeline.signals.extract`). `tests/contracts/test_extras.py` finds every file.
"""

from __future__ import annotations

from pipeline.factories import Computation, tensors

FACTORY = Computation("extract", (), tensors, "decant.extras", counted="MAPS")
"""What extra signals are that lie outside of this folder: functions, of as many maps as they have parameters."""
