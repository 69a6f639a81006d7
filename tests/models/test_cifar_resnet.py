from __future__ import annotations

from typing import Any

import h5py
import pytest
import timm
import torch
from plain_layers import State, assert_computes, classify, convolve, disturbed, images, normalise
from shared import shared_file
from torch import Tensor, nn

from pipeline.measuring.cost import parameters
from pipeline.models import build_network

MEAN, STD = (0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)


def plain_resnet(state: State, layers: int, x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Section 4.2 of arXiv 1512.03385; blocks of three convolutions are those of its figure 5."""
    shortcut, head = ("shortcut", "linear") if "linear.weight" in state else ("downsample", "fc")
    maps = []
    x = normalise(state, "bn1", convolve(state, "conv1", x)).relu()
    for layer in range(1, layers + 1):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            here, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            strides = (1, stride, 1) if f"{here}.conv3.weight" in state else (stride, 1)
            out = x
            for index, each in enumerate(strides, 1):
                out = out.relu() if index > 1 else out
                out = normalise(state, f"{here}.bn{index}", convolve(state, f"{here}.conv{index}", out, each))
            if f"{here}.{shortcut}.0.weight" in state:
                x = normalise(state, f"{here}.{shortcut}.1", convolve(state, f"{here}.{shortcut}.0", x, stride))
            x = (x + out).relu()
            block += 1
        maps.append(x)
    return classify(state, head, x), maps


@pytest.mark.parametrize(
    ("name", "layers", "options"),
    [
        ("cifar_resnet14", 3, {}),
        ("cifar_resnet8x4", 3, {}),
        ("cifar_resnet50", 4, {"widths": (8, 12, 16, 20), "stem": 4}),
    ],
)
def test_equals_the_paper_in_float64(name: str, layers: int, options: dict[str, Any]) -> None:
    model, state = disturbed(name, **options)
    assert_computes(model, *plain_resnet(state, layers, images(16)), images(16))


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 44, 56, 110])
def test_depth_counts_weighted_layers(depth: int) -> None:
    model: nn.Module = timm.create_model(f"cifar_resnet{depth}", num_classes=10)
    layers = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
    ]
    assert len(layers) == depth


# By hand: the stem 3*9*16, a group of n blocks of width w (2n - 1) * 9w^2 + 9 * in * w, a shortcut in * w, two values
# for every normalised channel, the classifier 65 * 100 or 257 * 100.
@pytest.mark.parametrize(("name", "count"), [("cifar_resnet20", 278_324), ("cifar_resnet8x4", 1_233_540)])
def test_parameters(name: str, count: int) -> None:
    assert parameters(build_network(name, 100)) == count


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_published_weights_load_as_they_are(depth: int) -> None:
    path = shared_file(f"data/weights/cifar100_resnet{depth}.safetensors")
    network = build_network(f"cifar_resnet{depth}", 100, path)
    assert network.linear
    assert parameters(network) == {20: 278_324, 32: 472_756, 44: 667_188, 56: 861_620}[depth]


@pytest.mark.long
def test_published_accuracy() -> None:
    weights = shared_file("data/weights/cifar100_resnet56.safetensors")
    with h5py.File(shared_file("data/cifar100.h5")) as file:
        images = torch.from_numpy(file["test/images"][:]).permute(0, 3, 1, 2)
        labels = torch.from_numpy(file["test/labels"][:])
    network = build_network("cifar_resnet56", 100, weights, mean=MEAN, std=STD).eval()
    network.keep_taps(())
    with torch.inference_mode():
        predicted = torch.cat([network(batch).logits.argmax(1) for batch in torch.split(images, 250)])
    assert 100 * float((predicted == labels).double().mean()) == pytest.approx(72.63, abs=0.02)
