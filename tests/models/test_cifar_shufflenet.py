from __future__ import annotations

import torch
import torch.nn.functional as F
from plain_layers import State, assert_computes, classify, convolve, disturbed, images, normalise
from torch import Tensor

from pipeline.models.architectures.cifar_shufflenet import shuffled


def test_the_shuffle_by_hand() -> None:
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffled(channels, 3).flatten().tolist() == [0, 2, 4, 1, 3, 5]
    assert shuffled(channels, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def spread(x: Tensor, groups: int) -> Tensor:
    """A shuffle as an index: channel j of group i becomes channel i of group j."""
    size = x.shape[1] // groups
    return x[:, [group * size + place for place in range(size) for group in range(groups)]]


def first_version(state: State, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Figure 2 (b, c) of arXiv 1707.01083, with a rectifier behind the depthwise convolution; blocks 2, 3, 1."""
    maps = []
    x = normalise(state, "bn1", convolve(state, "conv1", x)).relu()
    for group, blocks in ((1, 2), (2, 3), (3, 1)):
        for block in range(blocks):
            here, parts = f"layer{group}.{block}", 1 if (group, block) == (1, 0) else 3
            out = normalise(state, f"{here}.bn1", convolve(state, f"{here}.conv1", x, groups=parts)).relu()
            out = convolve(state, f"{here}.conv2", spread(out, parts), 1 if block else 2, groups=out.shape[1])
            out = convolve(state, f"{here}.conv3", normalise(state, f"{here}.bn2", out).relu(), groups=3)
            out = normalise(state, f"{here}.bn3", out)
            x = (out + x if block else torch.cat((out, F.avg_pool2d(x, 3, 2, 1)), 1)).relu()
        maps.append(x)
    return classify(state, "linear", x), maps


def second_version(state: State, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Figure 3 (c, d) of arXiv 1807.11164; blocks 2, 3, 1."""

    def layer(here: str, index: int, x: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        out = convolve(state, f"{here}.conv{index}", x, stride, groups=x.shape[1] if depthwise else 1)
        return normalise(state, f"{here}.bn{index}", out)

    maps = []
    x = normalise(state, "bn1", convolve(state, "conv1", x)).relu()
    for group, blocks in ((1, 2), (2, 3), (3, 1)):
        here = f"layer{group}.0"
        left = layer(here, 2, layer(here, 1, x, 2, depthwise=True)).relu()
        right = layer(here, 5, layer(here, 4, layer(here, 3, x).relu(), 2, depthwise=True)).relu()
        x = spread(torch.cat((left, right), 1), 2)
        for block in range(1, blocks):
            here, half = f"layer{group}.{block}", x.shape[1] // 2
            left, right = x[:, :half], x[:, half:]
            right = layer(here, 3, layer(here, 2, layer(here, 1, right).relu(), depthwise=True)).relu()
            x = spread(torch.cat((left, right), 1), 2)
        maps.append(x)
    return classify(state, "linear", normalise(state, "bn2", convolve(state, "conv2", x)).relu()), maps


def test_equals_the_papers_in_float64() -> None:
    model, state = disturbed("cifar_shufflenetv1", widths=(36, 72, 144), blocks=(2, 3, 1))
    assert_computes(model, *first_version(state, images(16)), images(16))
    model, state = disturbed("cifar_shufflenetv2", widths=(8, 12, 16), blocks=(2, 3, 1), width=20)
    assert_computes(model, *second_version(state, images(16)), images(16))
