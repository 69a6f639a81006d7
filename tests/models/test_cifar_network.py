from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from network_walk import pixels, walk
from torch import nn

from pipeline.measuring.cost import parameters
from pipeline.models import build_network

SMALL: dict[str, dict[str, Any]] = {
    "cifar_resnet8": {"widths": (4, 6, 8)},
    "cifar_resnet50": {"widths": (8, 12, 16, 20), "stem": 4},
    "cifar_wrn16_2": {"widths": (4, 6, 8)},
    "cifar_wrn40_1": {"widths": (4, 6, 8)},
    "cifar_vgg8": {"widths": (4, 6, 8, 10, 12)},
    "cifar_vgg13": {"widths": (4, 6, 8, 10, 12)},
    "cifar_mobilenetv2_050": {"widths": (4, 4, 6, 6, 8, 8, 10), "width": 16, "expansion": 2},
    "cifar_shufflenetv1": {"widths": (36, 48, 60), "blocks": (2, 2, 2)},
    "cifar_shufflenetv2": {"widths": (8, 12, 16), "blocks": (2, 2, 2), "width": 20},
}
"""One of every shape, as narrow as it goes."""


def layer(inputs: int, outputs: int, size: int = 1, groups: int = 1) -> int:
    """A convolution without a bias, and two values for every channel that is normalised."""
    return outputs * (inputs // groups) * size**2 + 2 * outputs


def head(width: int) -> int:
    return (width + 1) * 100


def wide_resnet(depth: int, factor: int) -> int:
    """A norm before every convolution but the first, and one at the end; a shortcut where the width changes."""
    widths = [16, 16 * factor, 32 * factor, 64 * factor]
    count = 9 * 3 * 16 + 2 * widths[-1] + head(widths[-1])
    for inputs, width in pairwise(widths):
        for block in range((depth - 4) // 6):
            first = inputs if block == 0 else width
            count += 2 * first + 9 * first * width + 2 * width + 9 * width**2
        count += inputs * width if inputs != width else 0
    return count


def vgg(depth: int) -> int:
    """With biases."""
    widths = [3, 64, 128, 256, 512, 512]
    stages = [layer(a, b, 3) + (depth - 1) * layer(b, b, 3) + depth * b for a, b in pairwise(widths)]
    return sum(stages) + head(512)


def mobilenet() -> int:
    count, inputs = layer(3, 16, 3), 16
    for group, (width, blocks) in enumerate(zip((8, 12, 16, 32, 48, 80, 160), (1, 2, 3, 4, 3, 3, 1), strict=True)):
        for _ in range(blocks):
            inner = inputs * (6 if group else 1)
            count += layer(inputs, inner) + layer(inner, inner, 3, inner) + layer(inner, width)
            inputs = width
    return count + layer(160, 1280) + head(1280)


def shufflenet() -> int:
    count, inputs = layer(3, 24), 24
    for width, units in ((240, 4), (480, 8), (960, 4)):
        for unit in range(units):
            own = width - inputs if unit == 0 else width
            inner, groups = own // 4, 1 if inputs == 24 else 3
            count += layer(inputs, inner, 1, groups) + layer(inner, inner, 3, inner) + layer(inner, own, 1, 3)
            inputs = width
    return count + head(960)


def shufflenet2() -> int:
    count, inputs = layer(3, 24), 24
    for width, units in ((116, 4), (232, 8), (464, 4)):
        half = width // 2
        count += layer(inputs, inputs, 3, inputs) + 2 * layer(inputs, half) - layer(half, half)
        count += units * (2 * layer(half, half) + layer(half, half, 3, half))
        inputs = width
    return count + layer(464, 1024) + head(1024)


def resnet50() -> int:
    count, inputs = layer(3, 64, 3), 64
    for width, blocks in ((256, 3), (512, 4), (1024, 6), (2048, 3)):
        inner = width // 4
        count += layer(inputs, width)
        for block in range(blocks):
            count += layer(width if block else inputs, inner) + layer(inner, inner, 3) + layer(inner, width)
        inputs = width
    return count + head(2048)


@pytest.mark.parametrize(
    ("name", "counted", "published"),
    [
        ("cifar_wrn16_1", wide_resnet(16, 1), 180_916),
        ("cifar_wrn16_2", wide_resnet(16, 2), 703_284),
        ("cifar_wrn40_1", wide_resnet(40, 1), 569_780),
        ("cifar_wrn40_2", wide_resnet(40, 2), 2_255_156),
        ("cifar_vgg8", vgg(1), 3_965_028),
        ("cifar_vgg13", vgg(2), 9_462_180),
        ("cifar_mobilenetv2_050", mobilenet(), 812_836),
        ("cifar_shufflenetv1", shufflenet(), 949_258),
        ("cifar_shufflenetv2", shufflenet2(), 1_355_528),
        ("cifar_resnet50", resnet50(), 23_705_252),
    ],
)
def test_parameters_are_those_of_the_literature(name: str, counted: int, published: int) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=100)
    assert parameters(model) == counted == published


@pytest.mark.parametrize("name", SMALL)
def test_teachers_and_students(name: str, tmp_path: Path) -> None:
    network = build_network(name, 7, input_size=32, options=SMALL[name], seed=0)
    walk(network, pixels(4, 3, 32, 32), tmp_path)
    assert network.linear_classifier
    assert network.local
    # The mean is of the last map, unless a norm or a convolution lies behind it.
    behind = name.startswith(("cifar_wrn", "cifar_mobilenet", "cifar_shufflenetv2"))
    assert (network.linear, network.linear_final) == (not behind, behind)


@pytest.mark.parametrize("name", SMALL)
def test_timm_interface(name: str) -> None:
    model: Any = timm.create_model(name, num_classes=10, drop_rate=0.5, in_chans=2, **SMALL[name]).eval()
    images = torch.randn(2, 2, 32, 32)
    final, maps = model.forward_intermediates(images)
    assert [tuple(each.shape[1:]) for each in maps] == [
        (info["num_chs"], 32 // info["reduction"], 32 // info["reduction"]) for info in model.feature_info
    ]
    assert all(model.get_submodule(info["module"]) for info in model.feature_info)
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(model.forward_head(final), model(images))
    assert final.shape[2:] == model.pretrained_cfg["pool_size"]
    early = model.forward_intermediates(images, indices=[1], stop_early=True, intermediates_only=True)
    assert len(early) == 1
    assert torch.equal(early[0], maps[1])
    assert model.get_submodule(model.pretrained_cfg["classifier"]) is model.get_classifier()
    assert isinstance(model.get_submodule(model.pretrained_cfg["first_conv"]), nn.Conv2d)
    assert model.train().forward_head(final, pre_logits=True).eq(0).any()
    model.eval().reset_classifier(3)
    assert model(images).shape == (2, 3)
    model.reset_classifier(0)
    assert torch.equal(model(images), model.forward_head(final, pre_logits=True))
