"""Random maps of two networks of different widths and grids, and layers by loops: for the methods on maps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.signals import LinearHead, Signals, SignalShapes

CLASSES = 5
CONTEXT = Context(num_samples=16, classes=CLASSES, labels=torch.arange(16) % CLASSES)
STUDENT = SignalShapes(CLASSES, 6, {"block1": (4, 16, 16), "block2": (6, 8, 8)}, linear=True)
TEACHER = SignalShapes(CLASSES, 8, {"block1": (5, 4, 4), "block2": (8, 4, 4)}, linear=True)
TOKENS = SignalShapes(CLASSES, 10, {f"block{i}": (10, 8, 8) for i in range(1, 5)}, linear=False)

Array = NDArray[Any]


def maps(shapes: SignalShapes, size: int, seed: int, dtype: torch.dtype = torch.float64) -> Signals:
    """Random signals of these shapes, positive maps like those after an activation."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(size, *shape, generator=generator, dtype=dtype)

    features = {name: random(*shape).relu() for name, shape in shapes.features.items()}
    width = shapes.embedding or 1
    head = LinearHead(torch.randn(CLASSES, width, generator=generator, dtype=dtype), torch.zeros(CLASSES, dtype=dtype))
    embedding = random(width)
    return Signals(head(embedding), embedding, features, head)


def batch(size: int, step: int = 0, sample: list[int] | None = None) -> Batch:
    """Rows 0, 1, ..., labels in turn."""
    rows = torch.tensor(sample) if sample else torch.arange(size)
    return Batch(labels=rows % CLASSES, sample=rows, view=torch.zeros_like(rows), step=step)


def built(
    name: str,
    options: dict[str, Any] | None = None,
    student: SignalShapes = STUDENT,
    teacher: SignalShapes = TEACHER,
    context: Context = CONTEXT,
) -> Objective:
    """The objective with the weights of seed 0, in float64."""
    torch.default_generator.manual_seed(0)
    return build_objective(name, options or {}, student, teacher, context).double()


def array(tensor: torch.Tensor) -> Array:
    """As numpy sees it."""
    return tensor.detach().numpy()


def cell_means(x: Array | torch.Tensor, grid: int) -> Array:
    """Means over the cells of a grid that divides the map: [B, C, H, W] to [B, C, grid, grid]."""
    x = array(x) if isinstance(x, torch.Tensor) else x
    b, c, h, w = x.shape
    return x.reshape(b, c, grid, h // grid, grid, w // grid).mean((3, 5))


def convolved(x: Array, weight: Array) -> Array:
    """A convolution that keeps the grid, by a loop over the kernel: x [B, C, H, W], weight [O, C, k, k] or [O, C]."""
    weight = weight.reshape(*weight.shape[:2], *(weight.shape[2:] or (1, 1)))
    size = weight.shape[2]
    padded = np.pad(x, ((0, 0), (0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    height, width = x.shape[2:]
    found = np.zeros((len(x), len(weight), height, width))
    for row in range(size):
        for column in range(size):
            part = padded[:, :, row : row + height, column : column + width]
            found += np.einsum("oc,bchw->bohw", weight[:, :, row, column], part)
    return found


def normalised(x: Array, norm: torch.nn.Module) -> Array:
    """Batch normalisation in training mode."""
    mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    weight, bias = (array(each)[:, None, None] for each in (norm.weight, norm.bias))
    return (x - mean) / np.sqrt(variance + norm.eps) * weight + bias


def projected(x: Array, layer: torch.nn.Module) -> Array:
    """A convolution and its norm, of a `Convolution` or a `Connector`."""
    return normalised(convolved(x, array(layer.linear.weight)), layer.norm)


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    """The value of an objective."""
    return torch.stack(list(terms.values())).sum()
