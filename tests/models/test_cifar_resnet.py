from __future__ import annotations

from typing import Any

import h5py
import pytest
import timm
import torch
import torch.nn.functional as F
from shared import shared_file
from torch import Tensor, nn

import pipeline.models  # noqa: F401 - registers the models
from pipeline.measuring.cost import parameters
from pipeline.models import build_network

MEAN, STD = (0.5070, 0.4865, 0.4409), (0.2673, 0.2564, 0.2761)


def plain_resnet(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Section 4.2 of arXiv 1512.03385 in evaluation mode, from the names of the weights."""

    def convolve(name: str, norm: str, x: Tensor, stride: int) -> Tensor:
        weight = state[f"{name}.weight"]
        x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
        mean, var = (state[f"{norm}.running_{key}"][:, None, None] for key in ("mean", "var"))
        scale, shift = (state[f"{norm}.{key}"][:, None, None] for key in ("weight", "bias"))
        return (x - mean) / torch.sqrt(var + 1e-5) * scale + shift

    x = convolve("conv1", "bn1", x, 1).relu()
    for layer in (1, 2, 3):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            here, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            out = convolve(f"{here}.conv1", f"{here}.bn1", x, stride).relu()
            out = convolve(f"{here}.conv2", f"{here}.bn2", out, 1)
            if f"{here}.downsample.0.weight" in state:
                x = convolve(f"{here}.downsample.0", f"{here}.downsample.1", x, stride)
            x = (x + out).relu()
            block += 1
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


@pytest.mark.parametrize("name", ["cifar_resnet14", "cifar_resnet8x4"])
def test_equals_the_paper_in_float64(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = timm.create_model(name, num_classes=7).double().eval()
    state = model.state_dict()
    for value in state.values():
        if value.is_floating_point():
            value.add_(0.1 * torch.rand(value.shape, generator=generator, dtype=value.dtype))
    images = torch.randn(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), plain_resnet(state, images), rtol=1e-12, atol=0)


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


def test_timm_interface() -> None:
    model: Any = timm.create_model("cifar_resnet8", num_classes=10, drop_rate=0.5).eval()
    images = torch.randn(2, 3, 32, 32)
    final, maps = model.forward_intermediates(images)
    assert [tuple(each.shape[1:]) for each in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(model.forward_head(final), model(images))
    early = model.forward_intermediates(images, indices=[1], stop_early=True, intermediates_only=True)
    assert len(early) == 1
    assert torch.equal(early[0], maps[1])
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    assert model.train().forward_head(final, pre_logits=True).eq(0).any()


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
