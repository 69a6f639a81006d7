"""RandAugment and TrivialAugment: each operation at each level against torchvision, and what is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from pipeline.config import Section, bind
from pipeline.errors import ConfigError, DataError
from pipeline.views import Operations, Views, ViewsConfig, build_views
from pipeline.views.operations._augment import NAMES, SIGNED

NUMBERS = {name: number for number, name in enumerate(NAMES)}
THEIRS: dict[str, Any] = {"randaugment": v2.RandAugment(), "trivial-augment": v2.TrivialAugmentWide()}
NOWHERE = ("identity", "posterize", "auto-contrast", "equalize")


def views(name: str, **options: Any) -> Views:
    return build_views(ViewsConfig.model_validate({"operations": [{"name": name, **options}], "seed": 4}))


def applied(name: str, image: Tensor, number: int, level: int, **options: Any) -> Tensor:
    return applied_at(name, image, number, [level], **options)[0]


def applied_at(name: str, image: Tensor, number: int, levels: Sequence[int], **options: Any) -> Tensor:
    """An image at several levels, [L, C, H, W]."""
    if name == "randaugment":
        options |= {"num_ops": 1, "magnitude": options.get("num_magnitude_bins", 31) - 1}
    parameters = np.array([[number, level] for level in levels], np.int32)
    return views(name, **options).apply(image.expand(len(levels), -1, -1, -1), parameters)


def expected(name: str, image: Tensor, number: int, level: int, interpolation: str = "nearest") -> Tensor:
    transform = THEIRS[name]
    key, (magnitudes, signed) = list(transform._AUGMENTATION_SPACE.items())[number]
    assert signed == (number in SIGNED)
    table = magnitudes(31, *image.shape[1:])
    magnitude = 0.0 if table is None else float(table[abs(level)]) * (-1 if level < 0 else 1)
    result: Tensor = transform._apply_image_or_video_transform(
        image, key, magnitude, interpolation=InterpolationMode(interpolation), fill={}
    )
    return result


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    """Smooth colours with some noise, [3, 48, 64]."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8, generator=generator), (48, 64), mode="bicubic")
    pixels = smooth * 255 + 8 * torch.randn(1, 3, 48, 64, generator=generator)
    return pixels.clamp(0, 255).to(torch.uint8)[0]


def test_the_operations_are_torchvision_s_in_their_order() -> None:
    for transform in THEIRS.values():
        names = [key.lower() for key in transform._AUGMENTATION_SPACE]
        assert names == [name.replace("-", "") for name in NAMES]


@pytest.mark.parametrize("name", list(THEIRS))
@pytest.mark.parametrize("operation", NAMES)
def test_every_level_is_torchvision_s(name: str, operation: str, photograph: Tensor) -> None:
    number = NUMBERS[operation]
    levels = range(-30 if number in SIGNED else 0, 31)
    for level, ours in zip(levels, applied_at(name, photograph, number, levels), strict=True):
        theirs = expected(name, photograph, number, level)
        apart = (ours.int() - theirs.int()).abs()
        share, largest = (apart > 0).float().mean(), apart.max()
        if operation in NOWHERE or (operation.startswith("translate") and (name == "randaugment" or abs(level) != 15)):
            assert largest == 0
        elif operation in ("brightness", "color", "contrast", "sharpness"):
            # Where a factor is a short decimal (0.4 at level -20), products are whole numbers that float32 misses.
            assert largest <= 1
            assert share <= (0.25 if level % 5 == 0 else 0.06)
        elif operation == "rotate":
            assert share <= 0.001
        elif operation.startswith("shear"):
            # Rows in the very middle between two pixels: every fifth where the shear is 0.2.
            assert share <= (0.15 if abs(level) == 20 else 0.04)
        elif operation == "solarize":
            # The very level of the threshold, where that is a whole number.
            assert torch.equal(apart > 0, (apart > 0) & (photograph == round(255 * (30 - level) / 30)))


@pytest.mark.parametrize("name", list(THEIRS))
@pytest.mark.parametrize("operation", ["shear-x", "shear-y", "rotate"])
def test_bilinear_is_torchvision_s_but_for_a_level(name: str, operation: str, photograph: Tensor) -> None:
    number = NUMBERS[operation]
    for level in (-30, -17, -2, 1, 11, 23, 30):
        theirs = expected(name, photograph, number, level, "bilinear")
        apart = (applied(name, photograph, number, level, interpolation="bilinear").int() - theirs.int()).abs()
        assert apart.max() <= 1
        assert (apart > 0).float().mean() <= 0.06


def test_every_stretch_of_levels_is_torchvision_s_but_for_products_that_float32_misses() -> None:
    apart, levels = 0, 0
    for low in (0, 1, 60, 130, 200):
        for high in range(low + 1, 256, 9):
            ramp = torch.arange(low, high + 1, dtype=torch.uint8)[None, None]
            ours = applied("randaugment", ramp, NUMBERS["auto-contrast"], 0).int()
            difference = v2.functional.autocontrast(ramp).int() - ours
            assert ours.flatten().tolist() == [(x - low) * 255 // (high - low) for x in range(low, high + 1)]
            assert set(difference.unique().tolist()) <= {-1, 0}
            assert not ((ramp.int() - low) * 255 % (high - low))[difference != 0].any()
            apart, levels = apart + int((difference != 0).sum()), levels + ramp.numel()
    assert 0 < apart < 0.05 * levels


def test_levels_worked_by_hand(photograph: Tensor) -> None:
    moved = applied("trivial-augment", photograph, NUMBERS["translate-x"], -15, fill=9)
    assert torch.equal(moved[:, :, :-16], photograph[:, :, 16:])
    assert (moved[:, :, -16:] == 9).all()
    # 150 / 331 of 64 and 48 pixels, times 10 / 30, towards zero: 9 and 7.
    for operation, axis, pixels in (("translate-x", 2, 9), ("translate-y", 1, 7)):
        moved = applied("randaugment", photograph, NUMBERS[operation], 10)
        kept = photograph.narrow(axis, 0, photograph.shape[axis] - pixels)
        assert torch.equal(moved.narrow(axis, pixels, kept.shape[axis]), kept)
    inverted = applied("randaugment", photograph, NUMBERS["solarize"], 30)
    assert torch.equal(inverted, 255 - photograph)
    assert torch.equal(applied("randaugment", photograph, NUMBERS["posterize"], 30), photograph & 0xF0)
    assert torch.equal(applied("trivial-augment", photograph, NUMBERS["posterize"], 30), photograph & 0xC0)
    assert torch.equal(
        applied("randaugment", photograph, NUMBERS["posterize"], 2, num_magnitude_bins=5), photograph & 0xFC
    )


@pytest.mark.parametrize("name", list(THEIRS))
def test_level_zero_and_flat_images_change_nothing(name: str, photograph: Tensor) -> None:
    flat = torch.full((3, 9, 9), 77, dtype=torch.uint8)
    for number, operation in enumerate(NAMES):
        if operation not in ("auto-contrast", "equalize", "solarize"):
            assert torch.equal(applied(name, photograph, number, 0), photograph)
        if operation not in ("brightness", "color", "contrast", "posterize", "solarize"):
            assert torch.equal(applied(name, flat, number, 30, fill=77), flat)


def test_grey_images_have_no_colour(photograph: Tensor) -> None:
    grey = photograph[:1]
    for number in range(len(NAMES)):
        ours, theirs = applied("randaugment", grey, number, 9), expected("randaugment", grey, number, 9)
        assert (ours.int() - theirs.int()).abs().max() <= 1
    assert torch.equal(applied("randaugment", grey, NUMBERS["color"], 30), grey)
    with pytest.raises(DataError, match="4 channels"):
        applied("trivial-augment", torch.zeros(4, 8, 8, dtype=torch.uint8), 1, 1)


def test_small_images_are_not_sharpened() -> None:
    thin = torch.arange(30, dtype=torch.uint8).view(1, 2, 15)
    assert torch.equal(applied("randaugment", thin, NUMBERS["sharpness"], 30), thin)


def test_a_batch_is_its_images_one_by_one(photograph: Tensor) -> None:
    for name in THEIRS:
        augment = views(name)
        images = torch.stack([photograph.roll(k, 2) for k in range(40)])
        parameters = augment.parameters(0, np.arange(40))
        for image, row, pixel in zip(images, parameters, augment.apply(images, parameters), strict=True):
            step = image
            for number, level in row.reshape(-1, 2).tolist():
                step = applied(name, step, number, level)
            assert torch.equal(step, pixel)


@pytest.mark.parametrize("name", list(THEIRS))
def test_what_is_drawn(name: str) -> None:
    N = 20_000
    drawn = views(name).parameters(0, np.arange(N))
    number, level = drawn[:, 0], drawn[:, 1]
    assert np.abs(np.bincount(number, minlength=14) / N - 1 / 14).max() < 4.5 * np.sqrt(1 / 14 / N)
    signed = np.isin(number, SIGNED)
    assert abs((level[signed & (level != 0)] < 0).mean() - 0.5) < 0.02
    assert (level[~signed] >= 0).all()
    if name == "randaugment":
        assert drawn.shape == (N, 4)
        assert set(np.abs(level)) == {9}
        assert abs(np.corrcoef(number, drawn[:, 2])[0, 1]) < 5 / np.sqrt(N)
    else:
        assert np.abs(np.bincount(np.abs(level), minlength=31) / N - 1 / 31).max() < 4.5 * np.sqrt(1 / 31 / N)


def test_a_magnitude_beyond_the_levels_is_refused() -> None:
    class Inputs(Section):
        operations: Operations = ()

    for options in ({"magnitude": 31}, {"magnitude": 9, "num_magnitude_bins": 9}):
        with pytest.raises(ConfigError, match="counted from 0") as error:
            bind({"operations": [{"name": "randaugment", **options}]}, Inputs, ["operations"])
        assert [problem.key for problem in error.value.problems] == ["operations.0.num_magnitude_bins"]
