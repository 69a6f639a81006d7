"""What a training run is made of, for the data and the cache of `experiment.road`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from experiment import HOLDOUT, LIMIT
from torch import Tensor

from pipeline.data import DataConfig, PackedDataset, Samples, select
from pipeline.errors import DataError
from pipeline.models import Network, build_network
from pipeline.objectives import Context, ObjectiveEntry, ObjectiveSet
from pipeline.progress import Silent
from pipeline.signals import SignalShapes
from pipeline.store.format.encoded import EncodedSignals
from pipeline.store.reader import TeacherCache
from pipeline.training import FreshViews, FromCaches, Steps, TrainConfig, ViewSource
from pipeline.views import Views, ViewsConfig, build_views

OPERATIONS = [{"name": "pad-crop", "padding": 1}, {"name": "horizontal-flip"}]
HARD = {"name": "hard-label", "weight": 0.1}
KD = {"name": "kd", "weight": 0.9}
LFCC = {"name": "lfcc", "width": 16, "scales": [1, 2]}
SMALL = ("cifar_resnet8", 8, {"widths": [16, 16, 16]})
VIT = (
    "vit_tiny_patch16_224",
    16,
    {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3, "global_pool": "avg"},
)


def samples(folder: Path, **changes: Any) -> Samples:
    """The samples that `road` learns from."""
    values = {"path": folder / "data.h5", "limit": LIMIT, "holdout": {"count": HOLDOUT}} | changes
    config = DataConfig.model_validate(values)
    return select(PackedDataset.open(config.path), config)[0]


def views(count: int = 2) -> Views:
    """The views of `road`."""
    return build_views(ViewsConfig.model_validate({"count": count, "operations": OPERATIONS}), (8, 8))


def cache(folder: Path) -> TeacherCache:
    """The cache of `road`."""
    return TeacherCache.open(folder / "artifacts/caches/tiny.zarr")


def whole(teacher: TeacherCache) -> FromCaches:
    """All views of a cache."""
    return FromCaches.of([(teacher, teacher.views)])


def config(**changes: Any) -> TrainConfig:
    """Three epochs on the CPU, in float32."""
    return TrainConfig.model_validate(
        {"epochs": 3, "batch_size": 16, "precision": "float32", "device": "cpu", "checkpoint_epochs": 1, **changes}
    )


def steps(folder: Path, source: ViewSource | None = None, seed: int = 0, **changes: Any) -> Steps:
    """Steps of the samples of `road`, with the outputs in its cache, or from another source."""
    chosen = source or whole(cache(folder))
    return Steps(samples(folder), views(), chosen, range(2), config(**changes), seed, rows_per_block=20)


def drawn(folder: Path, **changes: Any) -> Steps:
    """Steps without a teacher, with the same views."""
    return steps(folder, FreshViews(), **changes)


def network(kind: tuple[str, int, dict[str, Any]] = SMALL, seed: int = 0, **options: Any) -> Network:
    """A student with four classes."""
    model, size, own = kind
    return build_network(model, 4, input_size=size, options=own | options, seed=seed)


def objectives(student: Network, *entries: dict[str, Any], teacher: SignalShapes | None = None) -> ObjectiveSet:
    """An objective set for a student of the cache's teacher."""
    (embedding,) = student.taps["embedding"]
    blocks: Any = {tap: shape for tap, shape in student.taps.items() if tap.startswith("block")}
    shapes = SignalShapes(4, embedding, blocks, student.linear)
    kept = {"block2": (32, 2, 2), "block3": (64, 2, 2)}
    teacher = teacher or SignalShapes(4, 64, kept, True)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        bound = [ObjectiveEntry.model_validate(entry) for entry in entries]
        return ObjectiveSet("test", bound, shapes, teacher, Context(48, 4, views_per_step=2))


class Interrupting(Silent):
    """A progress that interrupts the run in its (n + 1)th step."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def advance(self, amount: int, note: str = "") -> None:
        """Count steps; raise KeyboardInterrupt when they are used up."""
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


class Poisoned(FromCaches):
    """Not a number for one sample: in every view, or in one."""

    def __init__(self, source: FromCaches, sample: int, view: int | None = None) -> None:
        super().__init__(source.teachers)
        self.sample, self.view = sample, view

    def teacher_outputs(self, view: int, samples: Any, images: torch.Tensor) -> EncodedSignals:
        """The stored outputs, but for one."""
        found = super().teacher_outputs(view, samples, images)
        assert isinstance(found, EncodedSignals)
        if self.view in (None, view):
            found.arrays["logits"][torch.from_numpy(np.asarray(samples == self.sample))] = float("nan")
        return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are equal bit for bit."""
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


class Unreadable(FromCaches):
    """One sample cannot be read, in its second view."""

    sample = 0

    def teacher_outputs(self, view: int, samples: Any, images: Tensor) -> Any:
        """The stored outputs, or an error that says which."""
        if view == 1 and self.sample in samples:
            raise DataError(f"one of samples {np.sort(samples).tolist()} cannot be read")
        return super().teacher_outputs(view, samples, images)
