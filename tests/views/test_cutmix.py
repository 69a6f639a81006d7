"""CutMix against torchvision and timm, with the same box, and boxes worked by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import mixup as timm_mixup
from torchvision.transforms import v2

from pipeline.views.beta import WHOLE, beta_shares
from pipeline.views.operations.cutmix import Options, build

SIZES = ((32, 32), (17, 40), (224, 160), (1, 3))


def words(count: int) -> Any:
    return np.random.default_rng(3).integers(0, 2**64, (count, 5), np.uint64)


@pytest.mark.parametrize("size", SIZES)
def test_boxes_are_timms(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """timm's own function, told which centre to draw: the same box, and the same share of the label."""
    (H, W), given = size, words(400)
    operation = build(Options())
    drawn = operation.draw(given, np.tile(np.array([size]), (400, 1)))
    shares = operation.shares(drawn, size)
    for word, (top, left, height, width), share in zip(given, drawn.tolist(), shares, strict=True):
        lam = int(beta_shares(word[2:3], 1.0)[0]) / WHOLE
        centres = iter([int(word[3] >> 32) * H >> 32, int(word[4] >> 32) * W >> 32])
        monkeypatch.setattr(np.random, "randint", lambda *_, size=None, centres=centres: next(centres))
        (yl, yh, xl, xh), adjusted = timm_mixup.cutmix_bbox_and_lam((1, 3, H, W), lam)
        assert (top, left, top + height, left + width) == (yl, xl, yh, xh)
        assert share == pytest.approx(adjusted, abs=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_torchvisions(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, 3, *size), dtype=torch.uint8, generator=generator)
    operation = build(Options())
    drawn = operation.draw(words(6), np.tile(np.array([size]), (6, 1)))
    ours = operation.mix(images, images.roll(1, 0), torch.from_numpy(drawn))
    for i, (top, left, height, width) in enumerate(drawn.tolist()):
        theirs: Any = v2.CutMix(num_classes=4)
        parameters = {"box": (left, top, left + width, top + height), "lam_adjusted": 0.5, "labels": None}
        assert torch.equal(theirs.transform(images, {**parameters, "batch_size": 6, "num_classes": 4})[i], ours[i])


def test_by_hand() -> None:
    """A quarter of the area: a half of each side, cut off at the border."""
    area = np.zeros((2, 5), np.uint64)
    area[:, 2] = 3 << 62  # alpha 1: the share is 3/4
    area[1, 3:] = 1 << 63  # centres: 0, 0 and the middle
    drawn = build(Options()).draw(area, np.array([[10, 16], [10, 16]]))
    assert drawn.tolist() == [[0, 0, 3, 4], [3, 4, 5, 8]]
    assert build(Options()).shares(drawn, (10, 16)).tolist() == [1 - 12 / 160, 1 - 40 / 160]


def test_roots_are_exact() -> None:
    """Sides by whole numbers, for areas that are squares and for those beside them."""
    operation = build(Options(alpha=1.0))
    roots = np.arange(2, 256)
    for share in (roots**2, roots**2 - 1, roots**2 + 1):
        given = np.zeros((len(roots), 5), np.uint64)
        given[:, 2] = (WHOLE - share).astype(np.uint64) << np.uint64(48)
        given[:, 3:] = 1 << 63
        for H in (1, 31, 32, 512, 1000, 16_384):
            drawn = operation.draw(given, np.tile(np.array([[H, H]]), (len(roots), 1)))
            assert drawn[:, 2].tolist() == [math.isqrt(H * H * int(c)) // 256 for c in share]


def test_a_view_that_is_not_mixed_is_the_image() -> None:
    operation = build(Options(probability=0.0))
    drawn = operation.draw(words(5), np.tile(np.array([[8, 9]]), (5, 1)))
    assert not drawn.any()
    assert operation.shares(drawn, (8, 9)).tolist() == [1] * 5
