"""How large everything is: as in the literature, or as small as it still says whether all of it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpu_parts.parts import BATCHES, STUDENTS


@dataclass(frozen=True)
class Kind:
    """A network: a model of Decant's, the side of its images in pixels, and its options."""

    model: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """Args:
    samples: of the small images; every batch size divides it.
    batches: sizes of the batches that are called as in `parts.BATCHES`; `batch` is that of parts with only one.
    rounds, steps: rounds of a measurement, and steps that each of them times.
    compared: steps after which weights are compared.
    grid: of the teacher's maps in the cache.
    negatives, width: options of CRCD and LFCC; None is their default.
    photographs, photograph: files, and their width and height; crop: pixels of their views.
    students: the most side by side.
    backend: of `torch.compile`.
    left_out: words of rows that are not measured.
    """

    samples: int = 512 * 98
    classes: int = 100
    batches: tuple[int, ...] = BATCHES
    batch: int = 128
    rounds: int = 5
    steps: int = 10
    compared: int = 20
    student: Kind = Kind("cifar_resnet20", 32)
    vit: Kind = Kind("vit_tiny_patch16_224", 32, {"img_size": 32, "patch_size": 4, "depth": 6, "global_pool": "avg"})
    large_vit: Kind = Kind("vit_small_patch16_224", 224)
    teacher: Kind = Kind("cifar_resnet56", 32)
    photo_teacher: Kind = Kind("resnet50", 224)
    micro_batch: int = 256
    grid: int = 4
    negatives: int | None = None
    width: int | None = None
    photographs: int = 512
    photograph: tuple[int, int] = (500, 375)
    crop: int = 224
    students: int = max(STUDENTS)
    backend: str = "inductor"
    left_out: tuple[str, ...] = ()


_SMALL = Kind("cifar_resnet8", 8, {"widths": [16, 16, 16]})
_VIT = Kind(
    "vit_tiny_patch16_224",
    8,
    {"img_size": 8, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3, "global_pool": "avg"},
)

SMOKE = Sizes(
    samples=128,
    classes=4,
    batches=(8, 16, 32),
    batch=16,
    rounds=3,
    steps=1,
    compared=2,
    student=_SMALL,
    vit=_VIT,
    large_vit=_VIT,
    teacher=Kind("cifar_resnet8", 8),
    photo_teacher=Kind("cifar_resnet8", 16),
    micro_batch=16,
    grid=2,
    negatives=8,
    width=16,
    photographs=16,
    photograph=(60, 45),
    crop=16,
    students=2,
    backend="aot_eager",
    left_out=("4 students", "8 students"),
)

FULL = Sizes()
