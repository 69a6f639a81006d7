"""Mirroring up and down against NumPy, twice, and how often it happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.views import Views, ViewsConfig, build_views


def views(probability: float) -> Views:
    operation = {"name": "vertical-flip", "probability": probability}
    return build_views(ViewsConfig.model_validate({"operations": [operation]}))


@pytest.mark.parametrize("shape", [(9, 3, 5, 7), (4, 1, 32, 32), (1, 3, 1, 1)])
def test_equals_numpy_and_undoes_itself(shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    parameters = views(0.5).parameters(0, np.arange(len(images)))
    pixels = views(0.5).apply(torch.from_numpy(images), parameters)
    for image, (flip,), pixel in zip(images, parameters, pixels.numpy(), strict=True):
        assert np.array_equal(pixel, image[:, ::-1] if flip else image)
    assert np.array_equal(views(0.5).apply(pixels, parameters).numpy(), images)


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_how_often(probability: float) -> None:
    N = 40_000
    flips = views(probability).parameters(0, np.arange(N))[:, 0]
    assert abs(flips.mean() - probability) <= 4.5 * np.sqrt(probability * (1 - probability) / N)
