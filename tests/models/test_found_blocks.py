"""The blocks of any module are the ends of its stages, found by running it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models

from pipeline.models.found_blocks import find_blocks
from pipeline.models.hooks import MapForm


def made(name: str) -> nn.Module:
    if name == "swin":
        return models.SwinTransformer([2, 2], 8, [1, 1, 1], [1, 1, 1], [2, 2], num_classes=4)
    if name == "vit":
        return models.VisionTransformer(16, 4, 6, 2, 8, 16, num_classes=4)
    model: nn.Module = models.get_model(name, num_classes=4)
    return model


@pytest.mark.parametrize(
    ("name", "size", "blocks"),
    [
        ("resnet18", 32, ["layer1", "layer2", "layer3", "layer4"]),
        ("mobilenet_v2", 64, ["features.3", "features.6", "features.13", "features"]),
        ("mobilenet_v3_small", 64, ["features.1", "features.3", "features.8", "features"]),
        ("mnasnet0_5", 64, ["layers.8", "layers.9", "layers.11", "layers"]),
        ("swin", 32, ["features.1", "features.3", "permute"]),
        ("vit", 16, [f"encoder.layers.encoder_layer_{i}" for i in (1, 2, 4, 5)]),
    ],
)
def test_blocks_are_the_ends_of_stages(name: str, size: int, blocks: list[str]) -> None:
    with torch.no_grad():
        assert find_blocks(made(name).eval(), torch.zeros(2, 3, size, size)) == blocks


def test_a_model_without_maps_has_no_blocks() -> None:
    assert find_blocks(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), torch.zeros(2, 3, 8, 8)) == []


def test_maps_of_images_that_are_not_square() -> None:
    image = (32, 48)
    assert MapForm.of(torch.zeros(2, 24, 4, 6), image) == MapForm("NCHW")
    assert MapForm.of(torch.zeros(2, 4, 6, 24), image) == MapForm("NHWC")
    tokens = MapForm.of(torch.arange(25.0).reshape(1, 25, 1), image)
    assert tokens == MapForm("NLC", 1, (4, 6))
    found: Any = tokens
    rows: Tensor = found.map(torch.arange(25.0).reshape(1, 25, 1))
    assert rows[0, 0, 1, 0] == 7  # behind the class token, the second row of six
    assert MapForm.of(torch.zeros(2, 3), image) is None
