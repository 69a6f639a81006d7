"""Small photos and small modules, for tests of use from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline import CachedViews, ModuleNetwork, as_network, cache_teacher, make_views
from pipeline.views import ViewsConfig

Photo = tuple[NDArray[np.uint8], int]
CLASSES, COUNT = 4, 24


def photos(count: int = COUNT, seed: int = 0) -> list[Photo]:
    """Arrays [8, 8, 3] of noise, and their labels."""
    random = np.random.default_rng(seed)
    return [(random.integers(0, 256, (8, 8, 3), np.uint8), number % CLASSES) for number in range(count)]


class Convolutions(nn.Module):
    """Two blocks and a linear layer."""

    def __init__(self, width: int = 8, classes: int = CLASSES, channels: int = 3) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.layer2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.BatchNorm2d(2 * width), nn.ReLU())
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.layer2(self.layer1(x)).mean((2, 3)))
        return logits


def network(width: int = 8, seed: int = 0, **options: Any) -> ModuleNetwork:
    """A network of two blocks."""
    torch.default_generator.manual_seed(seed)
    given = {"input_size": 8, "mean": 0.5, "std": 0.25, **options}
    made = as_network(Convolutions(width), ["layer1", "layer2"], **given)
    assert isinstance(made, ModuleNetwork)
    return made


def augment(count: int = 3, **options: Any) -> ViewsConfig:
    """Views with a shift by one pixel and a flip."""
    return make_views([{"name": "pad-crop", "padding": 1}, "horizontal-flip"], count=count, **options)


def cached(folder: Path, dataset: Any = None, teacher: Any = None, views: ViewsConfig | None = None) -> Path:
    """A cache of photos, in float32."""
    signals = {kind: {"encoding": "float32"} for kind in ("logits", "embedding")}
    blocks = {"features": {"grid": 2, "encoding": "float32"}}
    path = cache_teacher(
        teacher or network(16),
        photos() if dataset is None else dataset,
        views or augment(),
        folder / "cache.zarr",
        signals=signals | blocks,
        micro_batch=8,
        precision="float32",
        device="cpu",
        progress=False,
    )
    assert isinstance(path, Path)
    return path


def opened(path: Any, dataset: Any = None, **options: Any) -> CachedViews:
    """The views of a cache."""
    return CachedViews(path, photos() if dataset is None else dataset, progress=False, **options)
