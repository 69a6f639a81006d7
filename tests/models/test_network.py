from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models import Network, build_network
from pipeline.models.network import TimmNetwork


class Case(NamedTuple):
    model: str
    options: dict[str, Any]
    head: bool
    linear: bool
    local: bool
    deepest: tuple[str, tuple[int, ...]]
    final: tuple[int, ...]


TINY_VIT = {"img_size": 32, "patch_size": 4, "depth": 6}
TINY_SWIN = {
    "img_size": 32,
    "patch_size": 2,
    "window_size": 4,
    "embed_dim": 24,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 2, 4, 8],
}
LINEAR_FINAL = {"gmlp_ti16_224", "swin_tiny_patch4_window7_224", "tf_efficientnet_lite0"}
CASES = [
    Case("cifar_resnet8", {}, True, True, True, ("block3", (64, 8, 8)), (64, 8, 8)),
    Case("resnet18", {}, True, True, True, ("block4", (512, 1, 1)), (512, 1, 1)),
    # A norm behind the mean, or a class token in its place.
    Case(
        "vit_tiny_patch16_224",
        TINY_VIT | {"global_pool": "avg"},
        True,
        False,
        True,
        ("block4", (192, 8, 8)),
        (192, 8, 8),
    ),
    Case("vit_tiny_patch16_224", TINY_VIT, True, False, False, ("block4", (192, 8, 8)), (192, 8, 8)),
    # A norm between the last block and the mean.
    Case("gmlp_ti16_224", {"img_size": 32}, True, False, True, ("block4", (128, 2, 2)), (128, 2, 2)),
    Case("swin_tiny_patch4_window7_224", TINY_SWIN, True, False, True, ("block4", (192, 2, 2)), (192, 2, 2)),
    Case("test_convnext", {}, True, False, True, ("block4", (64, 1, 1)), (64, 1, 1)),
    # A convolution between the last block and the mean.
    Case("tf_efficientnet_lite0", {}, True, False, True, ("block4", (320, 1, 1)), (1280, 1, 1)),
    # A classifier that is a convolution.
    Case("dla46x_c", {}, False, False, False, ("block4", (256, 1, 1)), (256, 1, 1)),
]


def pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.model}-{len(case.options)}")
def built(request: pytest.FixtureRequest) -> tuple[Case, Network]:
    case: Case = request.param
    network = build_network(case.model, 10, input_size=32, options=case.options, seed=0)
    nn.init.normal_(network.model.get_classifier().weight, std=0.1)  # some begin with zeros
    return case, network


def test_taps_head_and_shapes(built: tuple[Case, Network]) -> None:
    case, network = built
    blocks = [tap for tap in network.taps if tap.startswith("block")]
    assert list(network.taps) == [*blocks, "final", "embedding", "logits"]
    assert (blocks[-1], network.taps[blocks[-1]]) == case.deepest
    assert network.taps["final"] == case.final
    assert (network.linear, network.local) == (case.linear, case.local)
    assert network.linear_final == (case.model in LINEAR_FINAL)
    network.keep_taps([*blocks, "final"])
    signals = network.eval()(pixels(2, 3, 32, 32))
    assert list(signals.features) == [*blocks, "final"]
    shapes = signals.shapes()
    assert network.taps == {**shapes.features, "embedding": (shapes.embedding,), "logits": (10,)}
    assert (signals.head is not None) == case.head
    assert shapes.linear == (case.linear if case.head else None)
    assert torch.equal(signals.features["final"], network(pixels(2, 3, 32, 32)).features["final"])
    if signals.head is not None:
        torch.testing.assert_close(signals.head(signals.embedding), signals.logits)
    assert shapes.linear_final == network.linear_final
    if network.linear_final:
        torch.testing.assert_close(signals.features["final"].mean((2, 3)), signals.embedding)
    if case.linear:
        torch.testing.assert_close(signals.features[case.deepest[0]].mean((2, 3)), signals.embedding)
    assert shapes.local == case.local
    if signals.local is not None:
        torch.testing.assert_close(signals.local(signals.features["final"].mean((2, 3))), signals.logits)


def test_logits_are_those_of_timm(built: tuple[Case, Network]) -> None:
    _, network = built
    images = pixels(2, 3, 32, 32)
    normalised = ((images.float() / 255) - 0.5) / 0.25
    expected = network.eval().model(normalised)
    for taps in ((), ("block1",), ("block1", "block2", "final")):
        network.keep_taps(taps)
        signals = network(images)
        assert tuple(signals.features) == taps
        torch.testing.assert_close(signals.logits, expected, rtol=1e-4, atol=1e-5)
        # What enters the classifier, seen from outside.
    classifier = network.model.get_classifier()
    if isinstance(classifier, nn.Linear):
        entered = []
        hook = classifier.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
        network.model(normalised)
        hook.remove()
        torch.testing.assert_close(signals.embedding, entered[0], rtol=1e-4, atol=1e-5)


def test_nothing_runs_twice_and_gradients_pass_every_tap(built: tuple[Case, Network]) -> None:
    case, network = built
    blocks = [tap for tap in network.taps if tap.startswith("block")]
    network.keep_taps(blocks)
    network.train()
    calls: dict[str, int] = {}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: calls.__setitem__(name, calls.get(name, 0) + 1))
        for name, module in network.model.named_modules()
        if not list(module.children()) and list(module.parameters())
    ]
    signals = network(pixels(4, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    assert set(calls.values()) == {1}
    assert len(calls) == len(hooks)
    taps = [*signals.features.values(), signals.embedding, signals.logits]
    first = next(network.model.parameters())
    for tap in taps:
        (gradient,) = torch.autograd.grad(tap.square().sum(), first, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.any()
    if case.head:
        head = signals.head
        assert head is not None
        assert head.weight is network.model.get_classifier().weight


def test_maps_are_the_layers_outputs() -> None:
    network = build_network("resnet18", 10, input_size=64, seed=0).eval()
    seen: list[Tensor] = []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        getattr(network.model, name).register_forward_hook(lambda _, __, output: seen.append(output))
    features = network(pixels(2, 3, 64, 64)).features
    assert list(features) == ["block1", "block2", "block3", "block4"]
    assert all(torch.equal(a, b) for a, b in zip(features.values(), seen, strict=True))


def test_normalisation_by_hand() -> None:
    network = build_network("cifar_resnet8", 10, mean=(0.5, 0.25, 0.0), std=(0.25, 0.5, 1.0)).eval()
    entered: list[Tensor] = []
    network.model.conv1.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    network(images)
    expected = torch.tensor([-2.0, -0.1, 1.0]).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(entered[0], expected)
    assert entered[0].is_contiguous(memory_format=torch.channels_last)
    network(images[:, 1:2])
    repeated = torch.tensor([-1.2, -0.1, 0.2]).view(1, 3, 1, 1).expand(2, 3, 32, 32)
    torch.testing.assert_close(entered[1], repeated)


@pytest.mark.parametrize("size", [(48, 48), (20, 20), (64, 24)])
def test_resizing_is_pillows(size: tuple[int, int]) -> None:
    network = build_network("cifar_resnet8", 10, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)).eval()
    entered: list[Tensor] = []
    network.model.conv1.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    images = pixels(1, 3, *size)
    network(images)
    for channel in range(3):
        plane = Image.fromarray(images[0, channel].numpy().astype(np.float32) / 255)
        expected = np.asarray(plane.resize((32, 32), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(entered[0][0, channel].numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model", "options", "size", "map_size"),
    [
        ("cifar_resnet8", {}, (16, 24), (4, 6)),
        ("vit_tiny_patch16_224", {"img_size": [16, 24], "patch_size": 8, "depth": 2}, (16, 24), (2, 3)),
        ("swin_tiny_patch4_window7_224", TINY_SWIN | {"img_size": [32, 64]}, (32, 64), (2, 4)),
    ],
)
def test_inputs_that_are_not_square(
    model: str, options: dict[str, Any], size: tuple[int, int], map_size: tuple[int, int]
) -> None:
    given = size if model == "cifar_resnet8" else None  # the options say it of the others
    network = build_network(model, 10, input_size=given, options=options, seed=0).eval()
    deepest = [tap for tap in network.taps if tap.startswith("block")][-1]
    assert network.taps[deepest][1:] == network.taps["final"][1:] == map_size
    entered = network.pixels(pixels(2, 3, *size))
    assert entered.shape == (2, 3, *size)
    assert network.pixels(pixels(2, 3, 20, 20)).shape == (2, 3, *size)
    torch.testing.assert_close(network(pixels(2, 3, *size)).logits, network.model(entered), rtol=1e-4, atol=1e-5)
    identity = json.loads(json.dumps(network.identity()))
    assert identity["input_size"] == list(size)
    assert build_network(**identity).identity() == identity


def test_as_many_channels_as_values_of_mean() -> None:
    mean, std = (0.0, 0.1, 0.2, 0.3, 0.4), (1.0, 0.5, 0.25, 0.2, 0.1)
    network = build_network("cifar_resnet8", 10, input_size=8, mean=mean, std=std).eval()
    assert network.model.conv1.in_channels == 5
    entered = network.pixels(torch.full((2, 5, 8, 8), 51, dtype=torch.uint8))
    by_hand = torch.tensor([0.2, 0.2, 0.0, -0.5, -2.0]).view(1, 5, 1, 1).expand(2, 5, 8, 8)
    torch.testing.assert_close(entered, by_hand, rtol=0, atol=1e-6)
    assert network(pixels(2, 5, 8, 8)).logits.shape == (2, 10)
    assert build_network(**network.identity()).identity() == network.identity()
    with pytest.raises(ModelError, match=r"expected: uint8 \[B, 5, H, W\]"):
        network(pixels(2, 3, 8, 8))
    with pytest.raises(ModelError, match="the images have 1 channel, and the network takes 5"):
        network.pixels.require(1)
    grey = build_network("cifar_resnet8", 10, input_size=8, mean=(0.5,), std=(0.25,))
    assert grey.model.conv1.in_channels == 1
    with pytest.raises(ModelError, match="name `mean` and `std` with 3 values each"):
        grey.pixels.require(3)
    build_network("cifar_resnet8", 10).pixels.require(1)  # repeated


def test_bfloat16_autocast_keeps_the_heads_precision() -> None:
    network = build_network("cifar_resnet8", 10, seed=0).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        signals = network(pixels(2, 3, 32, 32))
    assert {each.dtype for each in signals.features.values()} == {torch.bfloat16}
    assert signals.logits.dtype == torch.float32
    assert signals.head is not None
    assert torch.equal(signals.head(signals.embedding), signals.logits)
    full = network(pixels(2, 3, 32, 32))
    torch.testing.assert_close(signals.logits, full.logits, rtol=0.05, atol=0.05)


def test_head_without_bias() -> None:
    network = build_network("cifar_resnet8", 10, seed=0)
    network.model.fc = nn.Linear(64, 10, bias=False)
    signals = network(pixels(2, 3, 32, 32))
    torch.testing.assert_close(signals.head(signals.embedding), signals.logits)


@pytest.mark.parametrize("tap", ["block4", "embedding", "layer3"])
def test_unknown_taps(tap: str) -> None:
    network = build_network("cifar_resnet8", 10)
    with pytest.raises(ModelError, match="one of block1, block2, block3, final"):
        network.keep_taps([tap])


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 32, 32), torch.zeros(3, 32, 32).byte(), torch.zeros(2, 4, 32, 32).byte()]
)
def test_other_images_are_refused(images: Tensor) -> None:
    network = build_network("cifar_resnet8", 10)
    with pytest.raises(ModelError, match="expected: uint8"):
        network(images)


class Branches(nn.Module):
    """A model whose end is a list of maps, as CoaT's."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 10)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward_features(self, x: Tensor) -> list[Tensor]:
        return [self.one(x), self.two(self.one(x))]

    def forward_intermediates(self, x: Tensor, indices: Any = None, output_fmt: str = "NCHW") -> Any:
        maps = self.forward_features(x)
        return maps, [maps[i] for i in (indices or (0, 1))]

    def forward_head(self, x: list[Tensor], pre_logits: bool = False) -> Tensor:
        mean = sum((each.mean((2, 3)) for each in x), torch.zeros(()))
        result: Tensor = mean if pre_logits else self.head(mean)
        return result


def test_a_model_of_several_branches() -> None:
    network = TimmNetwork(Branches(), "branches", {}, 10, 8, (0.5,) * 3, (0.25,) * 3).eval()
    assert list(network.taps) == ["block1", "block2", "embedding", "logits"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        signals = network(pixels(2, 3, 8, 8))
    assert signals.head is not None
    torch.testing.assert_close(signals.head(signals.embedding), signals.logits)
    assert (network.linear, network.linear_final, network.local) == (False, False, False)
