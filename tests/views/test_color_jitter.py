"""Colours against torchvision at the same factors, against plain Python, and what changes nothing."""

from __future__ import annotations

import colorsys
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
from pipeline.views.operations import _color
from pipeline.views.operations.color_jitter import ORDERS

ONE = 1 << 16
WIDE = {"brightness": [0, 16], "contrast": [0, 16], "saturation": [0, 16], "hue": 0.5}
STEPS = {
    "brightness": reference.adjust_brightness,
    "contrast": reference.adjust_contrast,
    "saturation": reference.adjust_saturation,
    "hue": reference.adjust_hue,
}
NEUTRAL = {"brightness": ONE, "contrast": ONE, "saturation": ONE, "hue": 0}


def views(**options: Any) -> Views:
    return build_views(ViewsConfig.model_validate({"operations": [{"name": "color-jitter", **options}], "seed": 5}))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def every_colour() -> Tensor:
    """About 250,000 colours, levels 0 and 255 among them."""
    levels = torch.linspace(0, 255, 64).round().to(torch.uint8)
    return torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).view(1, 3, 512, 512)


def changed(images: Tensor, order: int = 0, **factors: int) -> Tensor:
    row = [order, *(factors.get(name, neutral) for name, neutral in NEUTRAL.items())]
    return views(**WIDE).apply(images, np.array([row] * len(images), np.int32))


def differences(ours: Tensor, theirs: Tensor) -> tuple[int, float]:
    """The largest difference, and the share of values that differ."""
    apart = (ours.int() - theirs.int()).abs()
    return int(apart.max()), float((apart > 0).float().mean())


@pytest.mark.parametrize("factor", [0.0, 0.25, 0.6001, 1.0, 1.37, 2.5, 16.0])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_are_torchvision_s_but_for_a_level(name: str, factor: float) -> None:
    units = round(factor * ONE)
    images = every_colour()
    ours, theirs = changed(images, **{name: units}), STEPS[name](images, units / ONE)
    largest, share = differences(ours, theirs)
    # Far from the image, a grey that is one level off is multiplied by the factor.
    assert largest <= max(1, np.ceil(abs(factor - 1)))
    assert share <= 0.01
    if name == "brightness" or factor == 1:
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("shift", [-0.5, -0.31, -0.1, 0.0, 1 / 6, 0.25, 0.4999, 0.5])
def test_hues_are_torchvision_s_but_for_a_level(shift: float) -> None:
    units = round(shift * ONE)
    images = every_colour()
    ours, theirs = changed(images, hue=units), reference.adjust_hue(images, units / ONE)
    largest, share = differences(ours, theirs)
    assert largest <= 1
    assert share <= 0.01
    if shift == 0:
        assert torch.equal(ours, images)


@settings(max_examples=60, deadline=None)
@given(colour=st.tuples(*[st.integers(0, 255)] * 3), shift=st.integers(-ONE // 2, ONE // 2))
def test_hues_are_those_of_the_standard_library(colour: tuple[int, int, int], shift: int) -> None:
    h, s, v = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
    expected = np.array(colorsys.hsv_to_rgb((h + shift / ONE) % 1.0, s, v)) * 255
    ours = changed(torch.tensor(colour, dtype=torch.uint8).view(1, 3, 1, 1), hue=shift).flatten().numpy()
    # Rounded down where it is dark, up where it is light, as torchvision does.
    assert np.abs(ours - expected).max() < 1.01


def test_whole_turns_and_greys_keep_the_hue() -> None:
    images = every_colour()
    half = changed(changed(images, hue=ONE // 2), hue=ONE // 2)
    assert torch.equal(half, images)
    thirds = changed(images, hue=round(ONE / 3))
    assert (thirds.int() - images.roll(1, 1).int()).abs().max() <= 1
    greys = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(changed(greys, hue=12345), greys)


def test_neutral_factors_change_nothing() -> None:
    images = noise(4, 3, 9, 11)
    for order in range(len(ORDERS)):
        assert torch.equal(changed(images, order), images)


def test_the_steps_come_in_the_order_that_is_stored() -> None:
    images, names = noise(24, 3, 16, 16), list(STEPS)
    factors = {"brightness": 50_000, "contrast": 90_000, "saturation": 20_000, "hue": 9_000}
    rows = [[order, *factors.values()] for order in range(24)]
    pixels = views(**WIDE).apply(images, np.array(rows, np.int32))
    for image, order, pixel in zip(images, ORDERS, pixels, strict=True):
        step = image[None]
        for number in order:
            step = changed(step, **{names[number]: factors[names[number]]})
        assert torch.equal(pixel, step[0])
        theirs = image
        for number in order:
            theirs = STEPS[names[number]](theirs, list(factors.values())[number] / ONE)
        assert (pixel.int() - theirs.int()).abs().float().mean() < 0.05


def test_one_channel_has_neither_hue_nor_saturation() -> None:
    grey = noise(2, 1, 16, 16)
    assert torch.equal(changed(grey, saturation=0, hue=9999), grey)
    for name in ("brightness", "contrast"):
        assert torch.equal(changed(grey, **{name: 40_000}), STEPS[name](grey, 40_000 / ONE))
    with pytest.raises(DataError, match="2 channels"):
        changed(noise(2, 2, 4, 4))


@pytest.mark.parametrize("probability", [0.0, 0.8, 1.0])
def test_factors_are_uniform_in_their_intervals(probability: float) -> None:
    N = 20_000
    jitter = views(probability=probability, brightness=0.4, contrast=[0.5, 0.75], saturation=0, hue=0.1)
    drawn = jitter.parameters(0, np.arange(N)).astype(np.float64)
    untouched = (drawn == [0, ONE, ONE, ONE, 0]).all(1)
    assert abs(1 - untouched.mean() - probability) <= 4.5 * np.sqrt(probability * (1 - probability) / N)
    some = drawn[~untouched]
    if not len(some):
        return
    assert np.abs(np.bincount(some[:, 0].astype(int), minlength=24) / len(some) - 1 / 24).max() < 0.01
    for column, low, high in ((1, 0.6, 1.4), (2, 0.5, 0.75), (4, -0.1, 0.1)):
        ordered = (np.sort(some[:, column]) / ONE - low) / (high - low)
        # Kolmogorov and Smirnov's distance from the uniform distribution, at about one in a million.
        assert np.abs(ordered - (np.arange(len(some)) + 0.5) / len(some)).max() < 2.7 / np.sqrt(len(some))
    assert (some[:, 3] == ONE).all()


def test_a_strength_is_an_interval_and_nonsense_is_refused() -> None:
    class Inputs(Section):
        operations: Operations = ()

    def bound(**options: Any) -> Any:
        return bind({"operations": [{"name": "color-jitter", **options}]}, Inputs, ["operations"]).operations[0]

    assert bound(brightness=2, hue=0.25) == bound(brightness=[0, 3], hue=[-0.25, 0.25])
    for options in ({"brightness": -1}, {"contrast": [2, 1]}, {"saturation": 17}, {"hue": 0.6}, {"hue": "much"}):
        with pytest.raises(ConfigError) as error:
            bound(**options)
        (problem,) = error.value.problems
        assert problem.key == f"operations.0.{next(iter(options))}"


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_grayscale_is_torchvision_s_but_for_a_level(probability: float) -> None:
    config = {"operations": [{"name": "grayscale", "probability": probability}]}
    grey = build_views(ViewsConfig.model_validate(config))
    drawn = grey.parameters(0, np.arange(4000))
    assert abs(drawn.mean() - probability) <= 4.5 * np.sqrt(probability * (1 - probability) / 4000)
    images = every_colour().expand(2, -1, -1, -1)
    pixels = grey.apply(images, np.array([[1], [0]], np.int32))
    assert torch.equal(pixels[1], images[1])
    largest, share = differences(pixels[0], reference.rgb_to_grayscale(images[0], 3))
    assert largest <= 1
    assert share <= 0.01
    one = noise(2, 1, 5, 5)
    assert torch.equal(grey.apply(one, np.array([[1], [0]], np.int32)), one)


def test_greys_are_the_weighted_sums_rounded_down() -> None:
    images = every_colour()
    exact = (images.to(torch.float64) * torch.tensor([0.2989, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)).sum(1)
    apart = exact - _color.greys(images)[:, 0]
    assert apart.min() > -0.003
    assert apart.max() < 1.003
