"""Mixup against float64 and torchvision, and mixes worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from device_counts import META, DeviceCounts
from torch import Tensor
from torchvision.transforms import v2

from pipeline.views.beta import WHOLE
from pipeline.views.operations.mixup import Options, build
from pipeline.views.operations.mixup_or_cutmix import Options as EitherOptions
from pipeline.views.operations.mixup_or_cutmix import build as build_either


def noise(seed: int, *shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def column(*shares: int) -> Tensor:
    return torch.tensor(shares, dtype=torch.int32)[:, None]


def test_by_hand() -> None:
    a, b = torch.full((5, 1, 1, 1), 10, dtype=torch.uint8), torch.full((5, 1, 1, 1), 21, dtype=torch.uint8)
    mixed = build(Options()).mix(a, b, column(WHOLE, 0, WHOLE // 2, WHOLE // 11, WHOLE - 1))
    # 15.5 is rounded up; a tenth-first of eleven levels is a hair more than 20 - 1e-4.
    assert mixed.flatten().tolist() == [10, 21, 16, 20, 10]


def test_against_float64_every_pair_of_levels() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    a = levels[:, None].expand(256, 256)[None, None]
    b = levels[None, :].expand(256, 256)[None, None]
    for share in (0, 1, 12_345, 32_768, 50_000, 65_535, 65_536):
        mixed = build(Options()).mix(a, b, column(share))[0, 0].numpy()
        exact = (share * a[0, 0].double() + (WHOLE - share) * b[0, 0].double()) / WHOLE
        assert np.array_equal(mixed, np.floor(exact.numpy() + 0.5))


def test_against_torchvision_within_half_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(0, 6, 3, 9, 11)
    theirs: Any = v2.MixUp(num_classes=4)
    share = 21_000
    mixed = theirs.transform(images.float(), {"lam": share / WHOLE, "labels": None, "batch_size": 6, "num_classes": 4})
    ours = build(Options()).mix(images, images.roll(1, 0), column(*[share] * 6))
    assert (ours.float() - mixed).abs().max() <= 0.5 + 1e-4


def test_shares_and_probability() -> None:
    words = np.random.default_rng(1).integers(0, 2**64, (4000, 5), np.uint64)
    drawn = build(Options(probability=0.25)).draw(words, None)
    assert abs((drawn[:, 0] < WHOLE).mean() - 0.25) < 0.03
    operation = build(Options())
    assert np.array_equal(
        operation.shares(operation.draw(words, None), (5, 5)) * WHOLE, operation.draw(words, None)[:, 0]
    )
    never = build(Options(probability=0.0))
    images = noise(2, 3, 3, 4, 5)
    drawn = never.draw(words[:3], None)
    assert torch.equal(never.mix(images, images.flip(0), torch.from_numpy(drawn)), images)
    assert never.shares(drawn, (4, 5)).tolist() == [1, 1, 1]


def test_either_is_one_or_the_other() -> None:
    words = np.random.default_rng(1).integers(0, 2**64, (4000, 5), np.uint64)
    sizes = np.tile(np.array([[16, 24]]), (4000, 1))
    either = build_either(EitherOptions(cutmix_share=0.3, probability=0.9))
    drawn = either.draw(words, sizes)
    blended, cut = drawn[:, 0] < WHOLE, drawn[:, 3:].any(1)
    assert not (blended & cut).any()
    assert abs(cut.mean() - 0.27) < 0.03
    assert abs(blended.mean() - 0.63) < 0.03
    # What is blended is blended as by mixup alone, of the same words.
    mixup = build(Options(alpha=0.8)).draw(words, sizes)
    assert np.array_equal(drawn[blended, 0], mixup[blended, 0])


def test_a_device_is_asked_for_few_operations() -> None:
    """How many pixels are worked on at a time is of a CPU's cache: a GPU was asked for 2,050 operations."""
    images = torch.empty(256, 3, 375, 500, dtype=torch.uint8, device=META)
    with DeviceCounts() as counts:
        build(Options()).mix(images, images, torch.empty(256, 1, dtype=torch.int32, device=META))
    assert 0 < counts.operations.total() < 50
    assert counts.copies == 0
