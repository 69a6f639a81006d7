"""A tiny teacher, tiny samples and tiny views with the interfaces of the real ones: tests of the store need no
more, and start quickly in processes that are killed."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from pipeline.data import Samples
from pipeline.signals import EmbeddingConfig, FeaturesConfig, LinearHead, LogitsConfig, Signals, SignalsConfig
from pipeline.store.making.caching import make_cache
from pipeline.store.making.teacher_pass import TeacherPass
from pipeline.views import Views, ViewsConfig, build_views

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For property tests: machines are busy at times."""

SIGNALS = SignalsConfig(features=FeaturesConfig(blocks=("block1", "block2"), grid=2))
FLOAT32 = SignalsConfig(
    logits=LogitsConfig(encoding="float32"),
    embedding=EmbeddingConfig(encoding="float32"),
    features=FeaturesConfig(grid=2, encoding="float32"),
)


class TinySamples:
    """`count` random images of 8 x 8 pixels: every other position of a split."""

    def __init__(self, count: int = 23, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.count, self.positions = count, np.arange(0, 2 * count, 2)
        self._images = torch.from_numpy(generator.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8))
        self.labels: Any = generator.integers(0, 5, count)
        ids = [f"image-{position}" for position in range(2 * count)]
        self.split = SimpleNamespace(name="tiny", ids=ids, image_shape=(8, 8, 3))

    def ids(self, samples: Any) -> list[str]:
        return [self.split.ids[position] for position in self.positions[samples]]

    at = Samples.at

    def read(self, samples: Any) -> Tensor:
        return self._images[torch.from_numpy(samples)]

    def pixel_digest(self) -> str:
        return "sha256:" + hashlib.sha256(self._images.numpy().tobytes()).hexdigest()

    def ids_digest(self) -> str:
        return "sha256:" + hashlib.sha256(repr(self.split.ids).encode()).hexdigest()


class TinyViews:
    """Each image rolled by a number of rows that depends on view and position; `exact`, one parameter."""

    def __init__(self, count: int = 3, first: int = 0, plain: bool = False) -> None:
        self.numbers = range(first, first + count)
        self.plain = plain
        self.parameter_names = () if plain else ("roll.rows",)
        self.needs_sizes, self.mixing = False, None

    def identity(self) -> dict[str, Any]:
        return {"seed": 0, "operations": [] if self.plain else [{"name": "roll"}]}

    def parameters(self, view: int, samples: Any, sizes: Any = None) -> Any:
        width = len(self.parameter_names)
        return ((samples * 5 + view * 3) % 8).astype(np.int32)[:, None][:, :width]

    def partners_in(self, parameters: Any) -> None:
        """None: nothing is mixed."""

    def apply(self, images: Tensor, parameters: Any, partners: None = None) -> Tensor:
        if self.plain:
            return images
        return torch.stack([image.roll(int(p), 1) for image, p in zip(images, parameters[:, 0], strict=True)])


def mixing_views(samples: TinySamples | None = None) -> Views:
    """Three real views that shift each image, mix it with that of another sample, and mirror what comes of it."""
    operations = [{"name": "pad-crop", "padding": 2}, {"name": "mixup-or-cutmix"}, {"name": "horizontal-flip"}]
    config = ViewsConfig.model_validate({"operations": operations, "count": 3, "seed": 5})
    return build_views(config, (8, 8), among=(samples or TinySamples()).positions)


SEEDING = threading.Lock()
"""Two workers that are threads must not both seed torch's one generator."""


class TinyNetwork(nn.Module):
    """Two convolutions, a mean and a head: 8 x 8 -> block1 [4, 8, 8] -> block2 [6, 4, 4] -> 6 -> 5 classes."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with SEEDING, torch.random.fork_rng():
            torch.default_generator.manual_seed(seed)
            self.first = nn.Conv2d(3, 4, 3, padding=1)
            self.second = nn.Conv2d(4, 6, 3, padding=1, stride=2)
            self.head = nn.Linear(6, 5)
        self.taps = {
            "block1": (4, 8, 8),
            "block2": (6, 4, 4),
            "final": (6, 4, 4),
            "embedding": (6,),
            "logits": (5,),
        }
        self.linear = True
        self.linear_final = False
        self.batches: list[int] = []
        self._kept: Sequence[str] = ("block1", "block2")

    def keep_taps(self, taps: Sequence[str]) -> None:
        self._kept = tuple(taps)

    def forward(self, images: Tensor) -> Signals:
        self.batches.append(len(images))
        x = images.float() / 255 - 0.5
        first = self.first(x).relu()
        second = self.second(first).relu()
        embedding = second.mean((2, 3))
        maps = {"block1": first, "block2": second, "final": second}
        head = LinearHead(self.head.weight, self.head.bias, True)
        return Signals(self.head(embedding), embedding, {tap: maps[tap] for tap in self._kept}, head)

    def identity(self) -> dict[str, Any]:
        return {"model": "tiny", "mean": [0.5], "std": [1.0]}

    def weights_digest(self) -> str:
        values = [value.numpy().tobytes() for _, value in sorted(self.state_dict().items())]
        return "sha256:" + hashlib.sha256(b"".join(values)).hexdigest()


class SlowNetwork(TinyNetwork):
    """Takes its time, so that something can happen meanwhile."""

    def forward(self, images: Tensor) -> Signals:
        time.sleep(0.02)
        return super().forward(images)


def teachers(**changes: Any) -> dict[str, TeacherPass]:
    """What a worker opens for the cache that `cache` makes, under the name `tiny`."""
    parts: dict[str, Any] = {
        "network": TinyNetwork(),
        "samples": TinySamples(),
        "views": TinyViews(),
        "config": SIGNALS,
        "precision": "float32",
        "micro_batch": 4,
        "device": torch.device("cpu"),
    } | changes
    return {"tiny": TeacherPass(**parts)}


def cache(target: Path, **changes: Any) -> Path:
    """A tiny cache: 3 views of 23 samples in row blocks of 8, micro-batches of 4, five arrays and two static."""
    arguments: dict[str, Any] = {
        "network": TinyNetwork(),
        "samples": TinySamples(),
        "views": TinyViews(),
        "signals": SIGNALS,
        "precision": "float32",
        "micro_batch": 4,
        "device": "cpu",
        "rows_per_block": 8,
        "notify": lambda text: None,
    } | changes
    return make_cache(target=target, **arguments)


def content(store: Path) -> dict[str, bytes]:
    """The files of a store that are a function of its identity: all but the root's metadata (provenance)."""
    files = (file for file in sorted(store.rglob("*")) if file.is_file())
    return {str(file.relative_to(store)): file.read_bytes() for file in files if file != store / "zarr.json"}
