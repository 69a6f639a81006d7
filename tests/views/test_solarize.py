"""Solarizing is torchvision's, undoes itself where nothing crosses the threshold, and happens as often as asked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from pipeline.views import Views, ViewsConfig, build_views


def views(**options: float) -> Views:
    return build_views(ViewsConfig.model_validate({"operations": [{"name": "solarize", **options}]}))


@pytest.mark.parametrize("threshold", [0, 1, 128, 255])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_equals_torchvision(threshold: int, channels: int) -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(2, channels, 1, 1)
    pixels = views(threshold=threshold).apply(levels, np.array([[1], [0]], np.int32))
    assert torch.equal(pixels[0], reference.solarize(levels[0], threshold))
    assert torch.equal(pixels[1], levels[1])


def test_threshold_zero_inverts_and_undoes_itself() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    inverted = views(threshold=0).apply(levels, np.array([[1]], np.int32))
    assert torch.equal(inverted, 255 - levels)
    assert torch.equal(views(threshold=0).apply(inverted, np.array([[1]], np.int32)), levels)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_how_often(probability: float) -> None:
    N = 40_000
    drawn = views(probability=probability).parameters(0, np.arange(N))[:, 0]
    assert abs(drawn.mean() - probability) <= 4.5 * np.sqrt(probability * (1 - probability) / N)
