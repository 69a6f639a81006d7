"""Stores whole steps of -127 to 127, and the size of a step for each sample, or for each channel of each sample.

A map [C, H, W] has one scale for each channel, as channels differ by orders of magnitude; a vector ([K] logits, [D]
embedding) has one. The scale is the largest magnitude over 127, so values are off by at most half a step: 1/254 of
the largest magnitude beside them.

Scales are float32, two bytes more than float16 (20 bytes instead of 18 for a channel of 4 x 4). So no magnitude is too
large or too small: a float16 scale would end at 8.3 million, and below 0.008 it loses bits. Only magnitudes under
2^-119 become zero (scale 0, a dead channel): the scale would be subnormal, which not every device can multiply by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.plugins import NoOptions
from pipeline.store.encodings._contract import EVERY_SIGNAL, Encoding, Parts
from pipeline.store.encodings._rows import anywhere

if TYPE_CHECKING:  # torch takes seconds, and manifests name encodings
    from torch import Tensor

SIGNALS = EVERY_SIGNAL
STEPS = 127
FLOAT32 = np.finfo(np.float32)
LARGEST_SCALE = float(np.nextafter(FLOAT32.max / np.float32(STEPS), np.float32(0)))
"""The largest scale whose 127 steps are finite in float32."""


@dataclass(frozen=True)
class Int8:
    """Stores the steps, in the shape of the signal, and a part `scale`.

    Args:
        shape: of the signal of one view.
    """

    shape: tuple[int, ...]

    @property
    def parts(self) -> Parts:
        """Return the steps and the scales: one for each index of the first axis, or one for a vector."""
        scales = self.shape[:1] if len(self.shape) > 1 else ()
        return {"": (np.dtype("i1"), self.shape), "scale": (np.dtype("<f4"), scales)}

    def encode(self, values: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        """Round values [R, ...] to the nearest step, ties to the even one."""
        import torch

        # By torch, several times as fast as NumPy (measured), to the same bits.
        scale = (self._largest(values) / STEPS).clamp(max=LARGEST_SCALE)
        scale[scale < FLOAT32.tiny] = 0
        divisor = scale.masked_fill(scale == 0, torch.inf)
        steps = torch.from_numpy(values) / _beside(divisor, values.ndim)
        return {"": steps.round_().to(torch.int8).numpy(), "scale": scale.numpy()}

    def decode(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the steps times their scale, the `parts` of a signal: float32 [R, ...]."""
        import torch

        steps = parts[""].to(torch.float32)
        return steps * _beside(parts["scale"], steps.ndim)

    def error_bound(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return half a step for each of `values`, with rounding and with what is too small for a scale: [R, ...]."""
        half = _beside(self._largest(values), values.ndim).double().numpy() / (2 * STEPS)
        return np.broadcast_to(half * (1 + 2.0**-14) + 2.0**-119, values.shape)

    def impossible_rows(self, part: str, rows: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which rows have a step of -128, or scales that are negative, too large or not numbers: [R]."""
        if part == "scale":
            return anywhere(~((rows >= 0) & (rows <= LARGEST_SCALE)))
        return anywhere(rows < -STEPS)

    def _largest(self, values: NDArray[np.float32]) -> Tensor:
        """Return the largest magnitude under each scale, in the shape of `scale`."""
        import torch

        return torch.from_numpy(values).abs().flatten(1 + len(self.parts["scale"][1])).amax(-1)


def build(shape: tuple[int, ...], options: NoOptions) -> Encoding:
    """Return the encoding for a signal of any shape. It has no options."""
    return Int8(shape)


def _beside(scale: Tensor, ndim: int) -> Tensor:
    """Return scales with as many axes as the values that they scale."""
    return scale.reshape(*scale.shape, *[1] * (ndim - scale.ndim))
