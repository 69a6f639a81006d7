"""Quarter turns against NumPy; four of them are none; images that are not square turn by halves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import DataError
from pipeline.views import Views, ViewsConfig, build_views


def views(size: tuple[int, int]) -> Views:
    return build_views(ViewsConfig.model_validate({"operations": ["rotate90"]}), size)


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_equals_numpy_and_four_turns_are_none() -> None:
    images, turning = noise(40, 3, 6, 6), views((6, 6))
    parameters = turning.parameters(0, np.arange(40))
    pixels = turning.apply(images, parameters)
    for image, (turns,), pixel in zip(images.numpy(), parameters, pixels.numpy(), strict=True):
        assert np.array_equal(pixel, np.rot90(image, turns, (1, 2)))
    again = pixels
    for _ in range(3):
        again = turning.apply(again, parameters)
    assert torch.equal(again, images)


def test_turns_are_equally_likely() -> None:
    N = 8000
    assert np.abs(np.bincount(views((5, 5)).parameters(0, np.arange(N))[:, 0]) / N - 1 / 4).max() < 0.025
    assert np.abs(np.bincount(views((5, 6)).parameters(0, np.arange(N))[:, 0]) / N - [1 / 2, 0, 1 / 2]).max() < 0.03


def test_a_quarter_turn_of_an_oblong_is_refused() -> None:
    images = noise(2, 3, 5, 6)
    half = views((5, 6)).apply(images, np.array([[0], [2]], np.int32))
    assert torch.equal(half, torch.stack([images[0], images[1].flip(1, 2)]))
    with pytest.raises(DataError, match="not square"):
        views((5, 6)).apply(images, np.array([[0], [1]], np.int32))
