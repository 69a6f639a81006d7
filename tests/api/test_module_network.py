"""Any module becomes a network: its maps, its head and its normalisation are those of the module itself."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
import torchvision
from api_pieces import CLASSES, Convolutions, network
from torch import Tensor, nn
from torchvision.models.convnext import CNBlockConfig

from pipeline import ModuleNetwork, TeacherNetwork, as_network, build_network
from pipeline.errors import ModelError
from pipeline.models import Network

IMAGES = torch.randint(0, 256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_signals_are_those_of_the_module() -> None:
    made = network(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)).eval()
    model: Any = made.model
    with torch.no_grad():
        said = made(IMAGES)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
        one = model.layer1((IMAGES / 255 - mean) / std)
        two = model.layer2(one)
        torch.testing.assert_close(said.features["block1"], one)
        torch.testing.assert_close(said.features["block2"], two)
        torch.testing.assert_close(said.embedding, two.mean((2, 3)))
        torch.testing.assert_close(said.logits, model.fc(two.mean((2, 3))))
        torch.testing.assert_close(said.head(said.embedding), said.logits)
    assert made.taps == {"block1": (8, 8, 8), "block2": (16, 4, 4), "embedding": (16,), "logits": (CLASSES,)}
    assert (made.head, made.linear, made.linear_final) == ("fc", True, False)


def test_a_hidden_layer_between_pooling_and_head_is_not_linear() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.Linear(8, 4))
    made = as_network(model, ["0"], input_size=8, mean=0.5, std=0.25)
    assert isinstance(made, ModuleNetwork)
    assert (made.head, made.linear) == ("4", False)


def test_a_module_whose_end_is_not_linear_has_no_embedding() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.ReLU())
    made = as_network(model, input_size=8, mean=0.5, std=0.25)
    assert made.taps == {"logits": (4,)}
    assert made(IMAGES).head is None
    with pytest.raises(ModelError, match="not the output of the head"):
        as_network(model, input_size=8, mean=0.5, std=0.25, head="1")
    with pytest.raises(ModelError, match="has no module 'fc'"):
        as_network(model, input_size=8, mean=0.5, std=0.25, head="fc")


def test_grey_modules_and_other_sizes() -> None:
    made = as_network(Convolutions(channels=1), ["layer2"], input_size=16, mean=(0.5,), std=(0.25,))
    assert made(IMAGES[:, :1]).features["block1"].shape == (4, 16, 8, 8)
    with pytest.raises(ModelError, match="whole batches of pixels"):
        made(IMAGES)


def test_vision_transformers_of_torchvision_give_maps_of_their_tokens() -> None:
    model = torchvision.models.VisionTransformer(16, 4, 2, 2, 8, 16, num_classes=4)
    layers: Any = model.encoder.layers
    blocks = ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"]
    made = as_network(model, blocks, input_size=16, mean=0.5, std=0.25).eval()
    assert made.taps["block2"] == (8, 4, 4)
    outputs: list[Tensor] = []
    layers.encoder_layer_0.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        found = made(IMAGES).features["block1"]
    expected = outputs[0][:, 1:].reshape(4, 4, 4, 8).permute(0, 3, 1, 2)  # behind the class token, row by row
    torch.testing.assert_close(found, expected)
    assert made.head == "heads.head"


def test_maps_with_channels_last_are_turned() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.fc = nn.Linear(3, 10), nn.Linear(10, 4)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.fc(self.block(x.permute(0, 2, 3, 1)).mean((1, 2)))
            return logits

    made = as_network(Turned(), ["block"], input_size=8, mean=0.5, std=0.25)
    assert made.taps["block1"] == (10, 8, 8)
    assert made.linear is True


def small_ones() -> dict[str, tuple[nn.Module, list[str]]]:
    """Small networks of torchvision's families, with two blocks of each."""
    models = torchvision.models
    swin = models.SwinTransformer([2, 2], 8, [1, 1], [1, 1], [2, 2], num_classes=4)
    stages = [CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]
    return {
        "convnext": (models.ConvNeXt(stages, num_classes=4), ["features.1", "features.3"]),
        "densenet": (models.DenseNet(4, (1, 1), 8, num_classes=4), ["features.denseblock1", "features.norm5"]),
        "swin": (swin, ["features.1", "features.3"]),
        "mobilenet": (models.mobilenet_v3_small(num_classes=4), ["features.8", "features.12"]),
    }


@pytest.mark.parametrize(
    ("family", "shapes"),
    [
        ("convnext", [(8, 8, 8), (16, 4, 4), (16,), (4,)]),
        ("densenet", [(12, 8, 8), (10, 4, 4), (10,), (4,)]),
        ("swin", [(8, 16, 16), (16, 8, 8), (16,), (4,)]),
        ("mobilenet", [(48, 2, 2), (576, 1, 1), (1024,), (4,)]),
    ],
)
def test_networks_of_torchvision(family: str, shapes: list[tuple[int, ...]]) -> None:
    model, blocks = small_ones()[family]
    made = as_network(model, blocks, input_size=32, mean=0.5, std=0.25)
    assert isinstance(made, ModuleNetwork)
    assert list(made.taps) == ["block1", "block2", "embedding", "logits"]
    assert list(made.taps.values()) == shapes
    assert made.linear == (family == "densenet")  # elsewhere a norm or a layer lies between the map and the head


def test_models_of_timm_say_themselves_how_images_become_input() -> None:
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2, num_classes=4)
    found = as_network(model, input_size=32)
    assert isinstance(found, Network)
    assert found.identity()["model"] == "vit_tiny_patch16_224"
    assert (found.mean, found.interpolation) == ((0.5, 0.5, 0.5), "bicubic")
    chosen = as_network(model, ["blocks.0", "blocks.1"], input_size=32)
    assert isinstance(chosen, ModuleNetwork)
    assert chosen.taps["block2"] == (192, 4, 4)
    assert chosen.mean == (0.5, 0.5, 0.5)


def test_blocks_are_found_and_copies_compute_the_same() -> None:
    model = small_ones()["swin"][0]
    made = as_network(model, "auto", input_size=32, mean=0.5, std=0.25).eval()
    assert isinstance(made, ModuleNetwork)
    assert made.blocks == ("features.1", "permute")
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():  # a copy is what the mean of a training's weights is kept in
        said, copied = made(images), copy.deepcopy(made)(images)
        assert torch.equal(copied.features["block2"], said.features["block2"])
        assert torch.equal(made.map_of(images, "block2"), said.features["block2"])


def test_both_doors_are_teachers() -> None:
    assert isinstance(network(), TeacherNetwork)
    assert isinstance(build_network("cifar_resnet8", 4, input_size=8), TeacherNetwork)
    assert not isinstance(Convolutions(), TeacherNetwork)


def test_identity_and_digest_tell_networks_apart() -> None:
    one = network()
    assert one.identity() == network().identity()
    assert one.weights_digest() == network().weights_digest()
    assert one.weights_digest() != network(seed=1).weights_digest()
    for other in (network(mean=0.4), network(name="mine"), network(interpolation="bicubic"), network(head=None)):
        assert other.identity() != one.identity()


def test_building_changes_neither_weights_nor_mode() -> None:
    model = Convolutions()
    model.layer1.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    as_network(model, ["layer1"], input_size=8, mean=0.5, std=0.25)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert (model.layer1.training, model.layer2.training) == (False, True)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_head_runs_in_its_own_precision_under_autocast() -> None:
    made = network()
    with torch.autocast("cpu", torch.bfloat16):
        said = made(IMAGES)
    assert said.logits.dtype == torch.float32
    assert said.features["block2"].dtype == torch.bfloat16


def test_only_the_kept_maps_are_returned() -> None:
    made = network()
    made.keep_taps(["block2"])
    assert list(made(IMAGES).features) == ["block2"]
    with pytest.raises(ModelError, match="no map at tap 'block3'"):
        made.keep_taps(["block3"])


@pytest.mark.parametrize(
    ("blocks", "options", "message"),
    [
        (["layer3"], {}, "did you mean 'layer"),
        (["fc"], {}, "a block gives no map"),
        (["layer1", "layer1"], {}, "a block twice"),
        (["layer1"], {"mean": None}, "mean=0,"),
        (["layer1"], {"input_size": None}, "input_size=32"),
        (["layer1"], {"std": 0.0}, "do not fit"),
        (["layer1"], {"std": (0.1,)}, "do not fit"),
    ],
)
def test_what_cannot_be_a_network_is_refused(blocks: list[str], options: dict[str, Any], message: str) -> None:
    given = {"input_size": 8, "mean": 0.5, "std": 0.25, **options}
    with pytest.raises(ModelError, match=message):
        as_network(Convolutions(), blocks, **given)


def test_modules_without_logits_are_refused() -> None:
    with pytest.raises(ModelError, match="gives no logits"):
        as_network(nn.Conv2d(3, 4, 3), input_size=8, mean=0.5, std=0.25)
