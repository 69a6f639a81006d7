"""What is erased, where, with what: against plain Python, torchvision, and the hash's own definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Philox
from torch import Tensor
from torchvision.transforms import RandomErasing
from torchvision.transforms.v2 import functional as reference

from pipeline.config import Section, bind
from pipeline.errors import ConfigError, DataError
from pipeline.views import Operations, Views, ViewsConfig, build_views


def views(image_size: tuple[int, int] | None = None, **options: Any) -> Views:
    config = {"operations": [{"name": "random-erasing", **options}], "seed": 9}
    return build_views(ViewsConfig.model_validate(config), image_size)


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def oracle(sample: int, H: int, W: int, options: dict[str, Any]) -> list[int]:
    """One rectangle, in plain Python, after torchvision's RandomErasing.make_params."""
    words = [int(w) for w in Philox(key=np.array([9, 0], np.uint64), counter=sample * 6).random_raw(24)]

    def uniform(word: int, low: float, high: float) -> float:
        return low + (high - low) * (word >> 40) / 2**24

    if uniform(words[20], 0, 1) >= options["probability"]:
        return [0, 0, 0, 0]
    for area_word, ratio_word in zip(words[:10], words[10:20], strict=True):
        area = H * W * uniform(area_word, *options["scale"])
        aspect = math.exp(uniform(ratio_word, *(math.log(value) for value in options["ratio"])))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < height < H and 0 < width < W:
            return [((words[21 + i] >> 32) * (n + 1)) >> 32 for i, n in enumerate((H - height, W - width))] + [
                height,
                width,
            ]
    return [0, 0, 0, 0]


@settings(max_examples=60, deadline=None)
@given(
    H=st.integers(1, 300),
    W=st.integers(1, 300),
    scale=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    ratio=st.tuples(st.floats(0.1, 9), st.floats(0.1, 9)).map(sorted),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
    sample=st.integers(0, 10**9),
)
def test_equals_a_plain_loop(
    H: int, W: int, scale: list[float], ratio: list[float], probability: float, sample: int
) -> None:
    options = {"scale": scale, "ratio": ratio, "probability": probability}
    drawn = views(**options).parameters(0, np.array([sample]), np.array([[H, W]]))
    assert drawn[0].tolist() == oracle(sample, H, W, options)


def test_the_law_is_torchvision_s() -> None:
    torch.manual_seed(0)
    scale, ratio, value = (0.02, 0.33), (0.3, 3.3), [0.0]
    theirs = [RandomErasing.get_params(torch.zeros(1, 90, 60), scale, ratio, value)[:4] for _ in range(1000)]
    ours = views((90, 60), probability=1.0).parameters(0, np.arange(4000))
    for column in range(4):
        a, b = np.array(theirs)[:, column], ours[:, column]
        assert abs(a.mean() - b.mean()) < 4.5 * np.sqrt(a.var() / len(a) + b.var() / len(b))


@pytest.mark.parametrize("value", [0, 77, [1, 2, 250]])
def test_pixels_are_torchvision_s(value: Any) -> None:
    images = noise(20, 3, 30, 40)
    erasing = views((30, 40), value=value)
    parameters = erasing.parameters(0, np.arange(20))
    assert 0 < (parameters[:, 2] == 0).sum() < 20
    fill = torch.tensor(value, dtype=torch.uint8).reshape(-1, 1, 1)
    for image, (top, left, height, width), pixel in zip(
        images, parameters.tolist(), erasing.apply(images, parameters), strict=True
    ):
        assert torch.equal(pixel, reference.erase(image, top, left, height, width, fill))


def mixed(x: int) -> int:
    """MurmurHash3's last step, in Python's integers."""
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) % 2**32
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) % 2**32
    return x ^ (x >> 16)


def test_noise_is_the_hash_of_seed_and_place() -> None:
    images = noise(3, 3, 9, 11)
    parameters = np.array([[2, 3, 5, 4, 0], [0, 0, 8, 10, 2**31 - 1], [0, 0, 0, 0, 0]], np.int32)
    pixels = views((9, 11), value="random").apply(images, parameters)
    assert torch.equal(pixels[2], images[2])
    for image, (top, left, height, width, seed), pixel in zip(images, parameters.tolist(), pixels, strict=True):
        expected = image.clone()
        for c, y, x in np.ndindex(3, height, width):
            place = (c * 9 + top + y) * 11 + left + x
            expected[c, top + y, left + x] = mixed((mixed(seed) + place) % 2**32) % 256
        assert torch.equal(pixel, expected)


def test_noise_is_uniform_and_of_each_view_its_own() -> None:
    erasing = views((64, 64), value="random", probability=1.0, scale=[0.5, 0.5], ratio=[1, 1])
    parameters = erasing.parameters(0, np.arange(16))
    assert len(set(parameters[:, 4])) == 16
    pixels = erasing.apply(torch.zeros(16, 3, 64, 64, dtype=torch.uint8), parameters)
    levels = [
        pixel[:, top : top + height, left : left + width].flatten().numpy()
        for pixel, (top, left, height, width) in zip(pixels, parameters[:, :4].tolist(), strict=True)
    ]
    counts = np.bincount(np.concatenate(levels), minlength=256)
    # Chi-squared with 255 degrees of freedom: mean 255, deviation 22.6.
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 255 + 5 * 22.6
    for i in range(15):
        assert abs(np.corrcoef(levels[i], levels[i + 1])[0, 1]) < 5 / np.sqrt(len(levels[i]))
    assert abs(np.corrcoef(levels[0][:-1], levels[0][1:])[0, 1]) < 5 / np.sqrt(len(levels[0]))


def test_colours_are_for_as_many_channels() -> None:
    erasing = views((9, 9), value=[1, 2, 3], probability=1.0)
    with pytest.raises(DataError, match="3") as error:
        erasing.apply(noise(2, 1, 9, 9), np.array([[0, 0, 2, 2]] * 2, np.int32))
    assert "1 levels" in str(error.value)


@pytest.mark.parametrize("value", [-1, 256, 1.5, "noise", [], [1, 300], True])
def test_other_values_are_refused_with_one_sentence(value: object) -> None:
    class Inputs(Section):
        operations: Operations = ()

    with pytest.raises(ConfigError) as error:
        bind({"operations": [{"name": "random-erasing", "value": value}]}, Inputs, ["operations"])
    (problem,) = error.value.problems
    assert problem.key == "operations.0.value"
