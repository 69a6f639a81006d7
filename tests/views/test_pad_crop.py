"""Padding and cropping against NumPy, one image at a time."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.views import ViewsConfig, build_views


def oracle(image: NDArray[np.uint8], padding: int, fill: int, top: int, left: int) -> NDArray[np.uint8]:
    _, H, W = image.shape
    sides = ((0, 0), (padding, padding), (padding, padding))
    return np.pad(image, sides, constant_values=fill)[:, top : top + H, left : left + W]


@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(1, 6),
    C=st.sampled_from([1, 3]),
    H=st.integers(1, 12),
    W=st.integers(1, 12),
    padding=st.integers(0, 14),
    fill=st.integers(0, 255),
    seed=st.integers(0, 1000),
)
def test_equals_numpy(B: int, C: int, H: int, W: int, padding: int, fill: int, seed: int) -> None:
    operation = {"name": "pad-crop", "padding": padding, "fill": fill}
    views = build_views(ViewsConfig.model_validate({"operations": [operation], "seed": seed}), (H, W))
    images = np.random.default_rng(seed).integers(0, 256, (B, C, H, W), np.uint8)
    parameters = views.parameters(0, np.arange(B))
    pixels = views.apply(torch.from_numpy(images), parameters).numpy()
    for i in range(B):
        assert np.array_equal(pixels[i], oracle(images[i], padding, fill, *parameters[i].tolist()))


def test_every_corner_of_the_crop_is_reached() -> None:
    views = build_views(ViewsConfig.model_validate({"operations": [{"name": "pad-crop", "padding": 1}]}))
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    for top in range(3):
        for left in range(3):
            pixels = views.apply(image, np.array([[top, left]], np.int32))[0]
            assert np.array_equal(pixels.numpy(), oracle(image[0].numpy(), 1, 0, top, left))


def test_corners_are_uniform_and_independent() -> None:
    views = build_views(ViewsConfig.model_validate({"operations": [{"name": "pad-crop"}]}))
    N = 81 * 1000
    top, left = views.parameters(0, np.arange(N)).T
    counts = np.bincount(top * 9 + left, minlength=81)
    # Chi-squared with 80 degrees of freedom: mean 80, deviation 12.6.
    assert ((counts - 1000) ** 2 / 1000).sum() < 80 + 5 * 12.6
    # Neighbouring samples and views have nothing to do with each other.
    assert abs(np.corrcoef(top[:-1], top[1:])[0, 1]) < 5 / np.sqrt(N)
    assert abs(np.corrcoef(top, views.parameters(1, np.arange(N))[:, 0])[0, 1]) < 5 / np.sqrt(N)
