"""Blurring against float64, torchvision, and what a blur must keep."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from pipeline.config import Section, bind
from pipeline.errors import ConfigError, DataError
from pipeline.views import Operations, Views, ViewsConfig, build_views
from pipeline.views.operations.gaussian_blur import WIDTHS, decays


def views(kernel_size: int, sigma: float | list[float], size: tuple[int, int] | None = None, **more: Any) -> Views:
    sigma = sigma if isinstance(sigma, list) else [sigma, sigma]
    operation = {"name": "gaussian-blur", "kernel_size": kernel_size, "sigma": sigma, **more}
    return build_views(ViewsConfig.model_validate({"operations": [operation]}), size)


def blurred(images: Tensor, kernel_size: int, sigma: float) -> Tensor:
    blur = views(kernel_size, sigma)
    return blur.apply(images, blur.parameters(0, np.arange(len(images))))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kernel_size", "sigma"), [(1, 1.0), (3, 0.5), (5, 1.0), (9, 2.0), (23, 0.1), (23, 2.0)])
def test_is_torchvision_s_but_for_a_level(kernel_size: int, sigma: float) -> None:
    images = noise(2, 3, 96, 64)
    ours, theirs = blurred(images, kernel_size, sigma), reference.gaussian_blur(images, [kernel_size] * 2, [sigma] * 2)
    apart = (ours.int() - theirs.int()).abs()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() <= 0.01


@settings(max_examples=30, deadline=None)
@given(
    reach=st.integers(0, 8), sigma=st.floats(0.05, 50), H=st.integers(9, 20), W=st.integers(9, 20), C=st.integers(1, 4)
)
def test_within_half_a_level_of_float64(reach: int, sigma: float, H: int, W: int, C: int) -> None:
    images, size = noise(1, C, H, W), 2 * reach + 1
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(images[0].numpy().astype(np.float64), ((0, 0), (reach, reach), (reach, reach)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))
    exact = (windows * kernel).sum((3, 4))
    assert np.abs(blurred(images, size, sigma)[0].numpy() - exact).max() < 0.56


@settings(max_examples=20, deadline=None)
@given(level=st.integers(0, 255), reach=st.integers(0, 4), sigma=st.floats(0.01, 900))
def test_a_flat_image_stays_flat(level: int, reach: int, sigma: float) -> None:
    flat = torch.full((1, 1, 6, 5), level, dtype=torch.uint8)
    assert torch.equal(blurred(flat, 2 * reach + 1, sigma), flat)


def test_narrow_blurs_change_nothing_and_turns_commute() -> None:
    images = noise(2, 3, 12, 12)
    assert torch.equal(blurred(images, 5, 0.05), images)
    for axis in (2, 3):
        assert torch.equal(blurred(images.flip(axis), 5, 1.3), blurred(images, 5, 1.3).flip(axis))


def test_widths_are_what_is_stored() -> None:
    assert decays((1.0, 1.0)) == (round(math.exp(-0.5) * 2**30),)
    table = decays((0.1, 2.0))
    assert len(table) == WIDTHS
    for i in (0, 100, 511, WIDTHS - 1):
        sigma = 0.1 + 1.9 * i / (WIDTHS - 1)
        assert abs(table[i] - math.exp(-0.5 / sigma**2) * 2**30) <= 0.51


@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_widths_are_uniform(probability: float) -> None:
    N = 20_000
    drawn = views(3, [0.5, 2.0], probability=probability).parameters(0, np.arange(N))[:, 0]
    assert abs((drawn > 0).mean() - probability) <= 4.5 * np.sqrt(probability * (1 - probability) / N)
    some = drawn[drawn > 0] / 2**30
    if len(some):
        ordered = (np.sort(np.sqrt(-0.5 / np.log(some))) - 0.5) / 1.5
        assert np.abs(ordered - (np.arange(len(some)) + 0.5) / len(some)).max() < 2.7 / np.sqrt(len(some)) + 1 / WIDTHS


def test_kernels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="too large"):
        views(13, 1.0, (32, 6))
    with pytest.raises(DataError, match="at least 7"):
        blurred(noise(1, 3, 6, 32), 13, 1.0)

    class Inputs(Section):
        operations: Operations = ()

    for options in ({"kernel_size": 4}, {"kernel_size": 3, "sigma": [2, 1]}, {"kernel_size": 3, "sigma": [0, 1]}):
        with pytest.raises(ConfigError) as error:
            bind({"operations": [{"name": "gaussian-blur", **options}]}, Inputs, ["operations"])
        assert len(error.value.problems) == 1
