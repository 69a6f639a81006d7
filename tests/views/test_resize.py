"""Fixed-point resizing against exact fractions, float64 and torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from device_counts import META, DeviceCounts
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from pipeline.views import Views, ViewsConfig, build_views
from pipeline.views.resample import ONE, taps

lengths = st.integers(1, 40)


def views(size: Any, interpolation: str = "bilinear") -> Views:
    operation = {"name": "resize", "size": size, "interpolation": interpolation}
    return build_views(ViewsConfig.model_validate({"operations": [operation]}))


def resized(images: Tensor, size: Any, interpolation: str = "bilinear") -> Tensor:
    return views(size, interpolation).apply(images, np.empty((len(images), 0), np.int32))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def matrix(source: int, target: int, interpolation: Any = "bilinear") -> NDArray[np.float64]:
    """The weights as a dense matrix [target, source]."""
    position, weights = taps(torch.tensor([0]), torch.tensor([source]), source, target, interpolation)
    dense = np.zeros((target, source))
    np.add.at(dense, (np.arange(target)[:, None], position[0].numpy()), weights[0].numpy() / ONE)
    return dense


def triangle(source: int, target: int) -> list[list[Fraction]]:
    """The antialiased triangle filter in exact arithmetic, from its definition."""
    scale = Fraction(source, target)
    support = max(scale, Fraction(1))
    rows = []
    for i in range(target):
        center = (i + Fraction(1, 2)) * scale
        row = [max(Fraction(0), 1 - abs(j + Fraction(1, 2) - center) / support) for j in range(source)]
        rows.append([value / sum(row) for value in row])
    return rows


def cubic(source: int, target: int) -> list[list[Fraction]]:
    """Keys' filter with a = -1/2, antialiased, in exact arithmetic, from its definition."""
    scale = Fraction(source, target)
    unit = max(scale, Fraction(1))

    def at(x: Fraction) -> Fraction:
        if x < 1:
            return Fraction(3, 2) * x**3 - Fraction(5, 2) * x**2 + 1
        return -Fraction(1, 2) * x**3 + Fraction(5, 2) * x**2 - 4 * x + 2 if x < 2 else Fraction(0)

    rows = []
    for i in range(target):
        center = (i + Fraction(1, 2)) * scale
        row = [at(abs(j + Fraction(1, 2) - center) / unit) for j in range(source)]
        rows.append([value / sum(row) for value in row])
    return rows


@settings(max_examples=40, deadline=None)
@given(source=st.integers(1, 24), target=st.integers(1, 24))
def test_cubic_weights_are_the_filter_in_units_of_2_to_the_minus_14(source: int, target: int) -> None:
    weights = matrix(source, target, "bicubic") * ONE
    assert np.array_equal(weights, np.rint(weights))
    assert (weights.sum(1) == ONE).all()
    for row, exact in zip(weights, cubic(source, target), strict=True):
        # One unit from the two sums that are rounded, and what distances are rounded by.
        assert all(abs(Fraction(value) - part * ONE) <= 1.6 for value, part in zip(row, exact, strict=True))


def test_cubic_weights_worked_by_hand() -> None:
    assert matrix(5, 5, "bicubic").tolist() == np.eye(5).tolist()
    # A quarter of a pixel to one side and to the other.
    aside = np.array([-9, 111, 29, -3]) / 128
    assert matrix(8, 16, "bicubic")[6, 1:5].tolist() == pytest.approx(aside[::-1], abs=1e-4)
    assert matrix(8, 16, "bicubic")[7, 2:6].tolist() == pytest.approx(aside, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(H=lengths, W=lengths, h=lengths, w=lengths)
def test_cubic_equals_float64_bit_for_bit(H: int, W: int, h: int, w: int) -> None:
    images = (noise(2, 3, H, W) > 127).to(torch.uint8) * 255
    wide = np.floor(images.numpy().astype(np.float64) @ matrix(W, w, "bicubic").T + 0.5).clip(0, 255)
    expected = np.floor(matrix(H, h, "bicubic") @ wide + 0.5).clip(0, 255)
    assert np.array_equal(resized(images, [h, w], "bicubic").numpy(), expected if (h, w) != (H, W) else images)


@pytest.mark.parametrize("size", [[224, 224], [256, 341], [97, 500], [480, 640]])
def test_cubic_is_torchvision_s_but_for_a_level(size: list[int]) -> None:
    images = noise(2, 3, 240, 320)
    images[1] = (torch.arange(240)[:, None] / 2 + torch.arange(320) / 3).to(torch.uint8)
    theirs = reference.resize(images, size, InterpolationMode.BICUBIC, antialias=True)
    apart = (resized(images, size, "bicubic").int() - theirs.int()).abs()
    # Both round in between, which a second pass may enlarge by a quarter: twice in a level on noise.
    assert apart[0].max() <= 2
    assert apart[1].max() <= 1
    assert (apart != 0).float().mean() < 0.05
    assert (apart > 1).float().mean() < 1e-4


def test_bilinear_has_the_identity_that_it_had() -> None:
    for name in ("resize", "resized-crop"):
        config = ViewsConfig.model_validate({"operations": [{"name": name, "size": 24}]})
        assert "interpolation" not in build_views(config).identity()["operations"][0]
        config = ViewsConfig.model_validate({"operations": [{"name": name, "size": 24, "interpolation": "bicubic"}]})
        assert build_views(config).identity()["operations"][0]["interpolation"] == "bicubic"


@settings(max_examples=40, deadline=None)
@given(source=st.integers(1, 24), target=st.integers(1, 24))
def test_weights_are_the_filter_in_units_of_2_to_the_minus_14(source: int, target: int) -> None:
    weights = matrix(source, target) * ONE
    assert np.array_equal(weights, np.rint(weights))
    assert (weights >= 0).all()
    assert (weights.sum(1) == ONE).all()
    for row, exact in zip(weights, triangle(source, target), strict=True):
        assert all(abs(Fraction(value) - part * ONE) <= 1 for value, part in zip(row, exact, strict=True))


def test_weights_worked_by_hand() -> None:
    assert matrix(4, 2).tolist() == pytest.approx(np.array([[3, 3, 1, 0], [0, 1, 3, 3]]) / 7, abs=1 / ONE)
    assert matrix(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert matrix(5, 5).tolist() == np.eye(5).tolist()


@settings(max_examples=30, deadline=None)
@given(H=lengths, W=lengths, h=lengths, w=lengths)
def test_equals_float64_bit_for_bit(H: int, W: int, h: int, w: int) -> None:
    images = noise(2, 3, H, W)
    wide = np.floor(images.numpy().astype(np.float64) @ matrix(W, w).T + 0.5)
    expected = np.floor(matrix(H, h) @ wide + 0.5)
    assert np.array_equal(resized(images, [h, w]).numpy(), expected)


@pytest.mark.parametrize("size", [[224, 224], [256, 341], [97, 500], [480, 640]])
def test_within_one_level_of_torchvision(size: list[int]) -> None:
    images = noise(2, 3, 240, 320)
    images[1] = (torch.arange(240)[:, None] / 2 + torch.arange(320) / 3).to(torch.uint8)
    pixels = resized(images, size).int()
    exact = reference.resize(images.double(), size, antialias=True)
    # Half a level from each of two roundings, and what the weights are rounded by.
    assert (pixels - exact).abs().max() < 1.1
    assert (pixels - exact.round()).abs().max() <= 1
    assert (pixels[1] - reference.resize(images[1:], size, antialias=True)[0].int()).abs().max() <= 1


@pytest.fixture(params=["medium", "high"])
def reduced(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


def test_reduced_precision_of_products_changes_nothing(reduced: None) -> None:
    images = noise(4, 3, 60, 70)
    wide = np.floor(images.numpy().astype(np.float64) @ matrix(70, 33).T + 0.5)
    assert np.array_equal(resized(images, [40, 33]).numpy(), np.floor(matrix(60, 40) @ wide + 0.5))


@pytest.mark.parametrize("mode", ["autocast", "inference", "float64 default"])
def test_the_caller_s_modes_change_nothing(mode: str) -> None:
    images = noise(4, 3, 60, 70)
    expected = resized(images, [40, 33])
    if mode == "autocast":
        with torch.autocast("cpu", dtype=torch.bfloat16):
            pixels = resized(images, [40, 33])
    elif mode == "inference":
        with torch.inference_mode():
            pixels = resized(images, [40, 33])
    else:
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            pixels = resized(images, [40, 33])
        finally:
            torch.set_default_dtype(before)
    assert torch.equal(pixels, expected)


@settings(max_examples=20, deadline=None)
@given(level=st.integers(0, 255), H=lengths, W=lengths, size=lengths)
def test_a_flat_image_stays_flat(level: int, H: int, W: int, size: int) -> None:
    flat = torch.full((1, 1, H, W), level, dtype=torch.uint8)
    assert (resized(flat, [size, size]) == level).all()


def test_large_batches_are_worked_on_in_parts() -> None:
    images = noise(23, 3, 160, 150)
    together = resized(images, [64, 72])
    assert torch.equal(together, torch.cat([resized(image[None], [64, 72]) for image in images]))


@pytest.mark.parametrize(
    ("image", "size", "expected"),
    [
        ((375, 500), 256, (256, 341)),
        ((500, 375), 256, (341, 256)),
        ((32, 32), 64, (64, 64)),
        ((7, 9), [3, 4], (3, 4)),
    ],
)
def test_one_number_is_the_shorter_side(image: tuple[int, int], size: Any, expected: tuple[int, int]) -> None:
    config = ViewsConfig.model_validate({"operations": [{"name": "resize", "size": size}]})
    assert build_views(config, image).output_size == expected
    assert tuple(resized(noise(1, 1, *image), size).shape[2:]) == expected
    assert list(reference.resize(noise(1, 1, *image), [size] if isinstance(size, int) else size).shape[2:]) == [
        *expected
    ]


def test_a_device_is_asked_for_few_operations_and_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's cache decides how many pixels it works on at a time: a GPU was asked for 7,754 operations."""
    images, none = torch.empty(256, 3, 375, 500, dtype=torch.uint8, device=META), torch.empty(256, 0, device=META)
    # What is made of Python's numbers is made here, and copied there while this process waits.
    monkeypatch.delattr(torch, "tensor")
    with DeviceCounts() as counts:
        views(224).apply(images, none)
    assert 100 < counts.operations.total() < 200
    assert counts.copies == 0
