"""Whole steps of -127 to 127, and the size of a step per sample, or per sample and channel where there are channels.

A map [C, H, W] has one scale for each channel, as channels differ by orders of magnitude; a vector ([K] logits, [D]
embedding) has one. The scale is the largest magnitude over 127, so values are off by at most half a step: 1/254 of
the largest magnitude beside them.

Scales are float32, two bytes more than float16 (20 bytes instead of 18 for a channel of 4 x 4), and for that no
magnitude is refused and none too small: a float16 scale would end at 8.3 million, and below 0.008 it has fewer bits
the smaller it gets. Only magnitudes under 2^-119 become zero (scale 0, a dead channel): the scale would be
subnormal, which not every device can multiply by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding, NoOptions, Parts

SIGNALS = EVERY_SIGNAL
STEPS = 127
FLOAT32 = np.finfo(np.float32)
LARGEST_SCALE = np.nextafter(FLOAT32.max / np.float32(STEPS), np.float32(0))
"""127 of the next larger ones would round to infinity."""


@dataclass(frozen=True)
class Int8:
    """The steps, of the signal's shape, and `scale`."""

    shape: tuple[int, ...]

    @property
    def parts(self) -> Parts:
        """A scale for each index of the first axis, if there are others."""
        scales = self.shape[:1] if len(self.shape) > 1 else ()
        return {"": (np.dtype("i1"), self.shape), "scale": (np.dtype("<f4"), scales)}

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Rounded to the nearest step, ties to the even one."""
        largest = self._largest(values)
        scale = np.minimum(largest / np.float32(STEPS), LARGEST_SCALE)
        scale[scale < FLOAT32.tiny] = 0
        steps = np.divide(values, scale, out=np.zeros_like(values), where=scale > 0)
        shape = (len(values), *self.parts["scale"][1])
        return {"": np.rint(steps).astype(np.int8), "scale": scale.reshape(shape)}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Steps times scale."""
        steps, scale = parts[""], parts["scale"]
        return steps.to(torch.float32) * scale.reshape(*scale.shape, *[1] * (steps.ndim - scale.ndim))

    def bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Half a step, the rounding of float32, and all of what is too small for a scale."""
        half = self._largest(values).astype(np.float64) / (2 * STEPS)
        return np.broadcast_to(half * (1 + 2.0**-14) + 2.0**-119, values.shape)

    def _largest(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The largest magnitude under each scale, broadcastable."""
        axes = tuple(range(1 + len(self.parts["scale"][1]), values.ndim))
        largest: NDArray[np.float32] = np.abs(values).max(axis=axes, keepdims=True)
        return largest


def build(shape: tuple[int, ...], options: NoOptions) -> Encoding:
    """For a signal of any shape."""
    return Int8(shape)
