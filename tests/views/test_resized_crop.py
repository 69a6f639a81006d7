"""Random crops: drawn as torchvision does, from our words; resized as `resize` does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional as reference

from pipeline.views import Views, ViewsConfig, build_views

N = 5000


def views(size: Any = 24, image_size: tuple[int, int] | None = None, **options: Any) -> Views:
    operation = {"name": "resized-crop", "size": size, **options}
    return build_views(ViewsConfig.model_validate({"operations": [operation], "seed": 9}), image_size)


def oracle(sample: int, H: int, W: int, scale: tuple[float, float], ratio: tuple[float, float]) -> list[int]:
    """One crop, in plain Python, after torchvision's RandomResizedCrop.get_params."""
    words = [int(w) for w in Philox(key=np.array([9, 0], np.uint64), counter=sample * 6).random_raw(22)]

    def uniform(word: int, low: float, high: float) -> float:
        return low + (high - low) * (word >> 40) / 2**24

    for area_word, ratio_word in zip(words[:10], words[10:20], strict=True):
        area = H * W * uniform(area_word, *scale)
        aspect = math.exp(uniform(ratio_word, math.log(ratio[0]), math.log(ratio[1])))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= W and 0 < height <= H:
            top = ((words[20] >> 32) * (H - height + 1)) >> 32
            left = ((words[21] >> 32) * (W - width + 1)) >> 32
            return [top, left, height, width]
    height, width = H, W
    if ratio[0] > W / H:
        height = max(1, round(W / ratio[0]))
    elif ratio[1] < W / H:
        width = max(1, round(H * ratio[1]))
    return [(H - height) // 2, (W - width) // 2, height, width]


@settings(max_examples=60, deadline=None)
@given(
    H=st.integers(1, 600),
    W=st.integers(1, 600),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
    narrow=st.floats(0.1, 2),
    wide=st.floats(1, 4),
    sample=st.integers(0, 10**9),
)
def test_equals_a_plain_loop(H: int, W: int, low: float, high: float, narrow: float, wide: float, sample: int) -> None:
    scale, ratio = (min(low, high), max(low, high)), (narrow, narrow * wide)
    drawn = views(scale=scale, ratio=ratio).parameters(0, np.array([sample]), np.array([[H, W]]))
    assert drawn[0].tolist() == oracle(sample, H, W, scale, ratio)
    top, left, height, width = drawn[0].tolist()
    assert 0 <= top <= top + height <= H
    assert 0 <= left <= left + width <= W


@pytest.mark.parametrize("image", [(40, 400), (400, 40), (30, 30)])
def test_fallback_is_torchvision_s(image: tuple[int, int]) -> None:
    # Crops of ten times the width never fit the first two; the third never has the area.
    ratio = (9.0, 11.0) if image[0] >= image[1] else (1 / 11, 1 / 9)
    options: dict[str, Any] = {"scale": (0.9, 1.0), "ratio": ratio}
    drawn = views(**options).parameters(0, np.arange(50), np.tile(np.array([image]), (50, 1)))
    top, left, height, width = RandomResizedCrop.get_params(torch.zeros(1, *image), [0.9, 1.0], list(ratio))
    assert drawn.tolist() == [[top, left, height, width]] * 50


def test_areas_proportions_and_places_are_uniform() -> None:
    image = (2000, 2000)
    options: dict[str, Any] = {"scale": (0.1, 0.3), "ratio": (0.5, 2.0)}
    drawn = views(image_size=image, **options).parameters(0, np.arange(N)).astype(np.float64)
    top, left, height, width = drawn.T
    area = (height * width / 4e6 - 0.1) / 0.2
    aspect = np.log(width / height) / np.log(4) + 0.5
    for values in (area, aspect, top / (2000 - height), left / (2000 - width)):
        ordered = np.sort(values)
        # Kolmogorov and Smirnov's distance from the uniform distribution, at about one in a million.
        assert np.abs(ordered - (np.arange(N) + 0.5) / N).max() < 2.7 / np.sqrt(N)
    # The same law as torchvision's, in its usual setting, where crops that do not fit are drawn again.
    torch.manual_seed(0)
    theirs = [RandomResizedCrop.get_params(torch.zeros(1, 300, 200), [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(1000)]
    ours = views(image_size=(300, 200)).parameters(0, np.arange(N))
    for column in range(4):
        a, b = np.array(theirs)[:, column], ours[:, column]
        assert abs(a.mean() - b.mean()) < 4.5 * np.sqrt(a.var() / len(a) + b.var() / len(b))


def test_pixels_are_those_of_crop_then_resize() -> None:
    images = torch.randint(0, 256, (12, 3, 50, 60), dtype=torch.uint8)
    crops = views([20, 28], (50, 60))
    parameters = crops.parameters(0, np.arange(12))
    pixels = crops.apply(images, parameters)
    resize = build_views(ViewsConfig.model_validate({"operations": [{"name": "resize", "size": [20, 28]}]}))
    for image, (top, left, height, width), got in zip(images, parameters.tolist(), pixels, strict=True):
        part = image[None, :, top : top + height, left : left + width]
        assert torch.equal(resize.apply(part, np.empty((1, 0), np.int32))[0], got)
        theirs = reference.resized_crop(image.double(), top, left, height, width, [20, 28], antialias=True)
        assert (got - theirs).abs().max() < 1.1
