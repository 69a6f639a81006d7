"""Random maps and heads, and their local logits by loops: for the methods on local logits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.signals import LinearHead, Signals
from pipeline.signals.lowpass import lowpass

CLASSES = 5


def network(seed: int, channels: int, size: int, batch: int = 6, grid: int | None = None) -> Signals:
    """Signals in float64 of a network whose head is linear, its map low-passed to a grid if one is given."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)
    weight = torch.randn(CLASSES, channels, generator=generator, dtype=torch.float64)
    head = LinearHead(weight, torch.randn(CLASSES, generator=generator, dtype=torch.float64))
    embedding = maps.mean((2, 3))
    return Signals(head(embedding), embedding, {"block1": maps if grid is None else lowpass(maps, grid)}, head)


def cells(signals: Signals, scale: int) -> NDArray[np.float64]:
    """The logits of r x r cells [B, r², K], one cell at a time: logits first, means of them after."""
    assert signals.head is not None
    maps, weight, bias = (x.numpy() for x in (signals.features["block1"], signals.head.weight, signals.head.bias))
    per_pixel = np.einsum("kc,bchw->bkhw", weight, maps) + bias[:, None, None]
    step = maps.shape[2] // scale
    found = []
    for row in range(scale):
        for column in range(scale):
            part = per_pixel[:, :, row * step : (row + 1) * step, column * step : (column + 1) * step]
            found.append(part.mean((2, 3)))
    return np.stack(found, axis=1)
