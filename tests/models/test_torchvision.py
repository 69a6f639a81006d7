"""Models of torchvision by name: the same outputs as torchvision's own, weights back and forth, clear refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torchvision import models
from torchvision.models import GoogLeNet_Weights, ResNet18_Weights

from pipeline.errors import ModelError
from pipeline.models import ModuleNetwork, NetworkConfig, build_network, preprocessing_of
from pipeline.models.build import class_names
from pipeline.planning.students import require_trainable

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def normalised(mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    m, s = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return (IMAGES / 255 - m) / s


@pytest.mark.parametrize(
    ("name", "deepest"),
    [("resnet18", "layer4"), ("mobilenet_v3_small", "features"), ("shufflenet_v2_x0_5", "conv5")],
)
def test_outputs_are_those_of_torchvision(name: str, deepest: str, tmp_path: Path) -> None:
    network = build_network(f"torchvision/{name}", 5, input_size=32, seed=3).eval()
    assert isinstance(network, ModuleNetwork)
    network.save(tmp_path / "weights.safetensors")
    plain: Any = models.get_model(name, num_classes=5)
    plain.load_state_dict(load_file(tmp_path / "weights.safetensors"))  # back into torchvision's own
    outputs: list[Tensor] = []
    plain.get_submodule(deepest).register_forward_hook(lambda module, inputs, output: outputs.append(output))
    with torch.no_grad():
        expected, found = plain.eval()(normalised(network.mean, network.std)), network(IMAGES)
        torch.testing.assert_close(found.logits, expected)
        torch.testing.assert_close(found.features[f"block{len(network.blocks)}"], outputs[0])
        torch.testing.assert_close(found.head(found.embedding), expected)
    again = build_network(f"torchvision/{name}", 5, tmp_path / "weights.safetensors", 32)
    assert again.weights_digest() == network.weights_digest()


def test_extra_classifiers_are_left_out_and_images_are_brought_into_the_range_of_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = models.googlenet(num_classes=5, transform_input=True, init_weights=False).eval()
    torch.save(plain.state_dict(), tmp_path / "weights.pth")
    expected = preprocessing_of("torchvision/googlenet.IMAGENET1K_V1")
    how = {"mean": expected.mean, "std": expected.std, "input_size": 32}
    network = build_network("torchvision/googlenet", 5, tmp_path / "weights.pth", **how).eval()
    said = GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES).logits, plain(normalised(said.mean, said.std)), rtol=1e-4, atol=1e-5)
    assert not [name for name in network.model.state_dict() if name.startswith("aux")]
    assert network.train()(IMAGES).logits.shape == (len(IMAGES), 5)


def test_a_network_that_fails_while_it_is_trained_is_refused() -> None:
    class Larger(torch.nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                torch.nn.functional.conv2d(x, torch.zeros(1, 3, 33, 33))
            return super().forward(x)

    pooled = [torch.nn.Conv2d(3, 4, 3), torch.nn.Dropout(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
    layers = [*pooled, torch.nn.Linear(4, 5)]
    how = {"input_size": 32, "mean": (0.5,) * 3, "std": (0.25,) * 3, "name": "larger"}
    network = ModuleNetwork(Larger(*layers), ["0"], **how).eval()  # type: ignore[arg-type]
    state = torch.get_rng_state()
    with pytest.raises(
        ModelError, match="larger runs on images of 32 x 32 pixels, but not while it is trained"
    ) as error:
        require_trainable(network)
    assert "RuntimeError: " in str(error.value)
    require_trainable(ModuleNetwork(torch.nn.Sequential(*layers), ["0"], **how))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), state)
    assert not network.training


@pytest.mark.parametrize(("name", "first"), [("shufflenet_v2_x0_5", "conv1.0"), ("squeezenet1_1", "features.0")])
def test_images_of_other_channels_than_three_get_a_first_convolution_of_as_many(
    name: str, first: str, tmp_path: Path
) -> None:
    images = torch.randint(0, 256, (4, 5, 32, 32), dtype=torch.uint8)
    how: dict[str, Any] = {"input_size": 32, "mean": (0.5,) * 5, "std": (0.25,) * 5}
    network = build_network(f"torchvision/{name}", 4, seed=1, **how).eval()
    said = network(images)
    assert network.model.get_submodule(first).in_channels == 5
    plain = models.get_model(name, num_classes=4)
    spread = network.model.get_submodule(first).weight.std() / plain.get_submodule(first).weight.std()
    assert 0.6 < spread < 1  # sqrt(3 / 5) = 0.77: sums over the channels are as large
    network.save(tmp_path / "weights.safetensors")
    again = build_network(f"torchvision/{name}", 4, tmp_path / "weights.safetensors", **how).eval()
    torch.testing.assert_close(again(images).logits, said.logits)
    torch.save(plain.state_dict(), tmp_path / "three.pth")
    with pytest.raises(ModelError, match="weight"):
        build_network(f"torchvision/{name}", 4, tmp_path / "three.pth", **how)


def test_the_seed_decides_all_weights_and_leaves_the_generator_alone() -> None:
    state = torch.get_rng_state()
    networks = [build_network("torchvision/mnasnet0_5", 4, input_size=32, seed=seed) for seed in (1, 1, 2)]
    digests = [network.weights_digest() for network in networks]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.get_rng_state(), state)
    assert build_network(**networks[0].identity()).identity() == networks[0].identity()


def test_what_pretrained_weights_expect_is_torchvisions_own() -> None:
    expected = ResNet18_Weights.IMAGENET1K_V1.transforms()
    found = preprocessing_of("torchvision/resnet18.IMAGENET1K_V1")
    assert (list(found.mean), list(found.std)) == (expected.mean, expected.std)
    network = build_network("torchvision/resnet18", 2, "pretrained", offline=True, classes=[1, "tench"])
    assert (network.input_size, network.mean, network.classes) == (224, tuple(expected.mean), (1, 0))


def test_a_start_keeps_all_but_the_classifier(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    torch.save(models.shufflenet_v2_x0_5(num_classes=7).state_dict(), weights)
    network = build_network("torchvision/shufflenet_v2_x0_5", 4, start=weights, input_size=32, seed=0)
    assert network.kept is not None
    assert network.kept.new == ("fc.weight", "fc.bias")
    assert torch.equal(network.model.conv1[0].weight, torch.load(weights)["conv1.0.weight"])
    with pytest.raises(ModelError, match="not for the classes of the data"):
        build_network("torchvision/shufflenet_v2_x0_5", 4, weights, 32)


def test_classes_of_a_larger_teacher_are_chosen(tmp_path: Path) -> None:
    whole = build_network("torchvision/shufflenet_v2_x0_5", 7, input_size=32, seed=0).eval()
    whole.save(tmp_path / "whole.safetensors")
    some = build_network(whole.name, 3, tmp_path / "whole.safetensors", 32, classes=[6, 0, 2]).eval()
    with torch.no_grad():
        found = some(IMAGES)
        torch.testing.assert_close(found.logits, whole(IMAGES).logits[:, [6, 0, 2]])
        torch.testing.assert_close(found.head(found.embedding), found.logits)
    assert (some.num_classes, some.taps["logits"]) == (3, (3,))
    assert some.identity()["classes"] == [6, 0, 2]
    assert some.weights_digest() != whole.weights_digest()


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"classes": [0, 7, 1]}, "no class 7"),
        ({"classes": [0, 0, 1]}, "chosen twice"),
        ({"classes": [0, 1]}, "must be chosen for each"),
        ({"classes": ["cat", 1, 2]}, "no class 'cat'"),
    ],
)
def test_classes_that_do_not_fit_are_refused(wanted: dict[str, Any], what: str, tmp_path: Path) -> None:
    torch.save(models.shufflenet_v2_x0_5(num_classes=7).state_dict(), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=what):
        build_network("torchvision/shufflenet_v2_x0_5", 3, tmp_path / "a.pth", 32, **wanted)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"model": "torchvision/resnet81"}, "did you mean 'resnet18'"),
        ({"model": "torchvision/resnet18.IMAGENET1K_V3", "weights": "pretrained"}, "no weights 'IMAGENET1K_V3'"),
        ({"model": "torchvision/resnet18", "options": {"depth": 3}}, "unexpected keyword argument 'depth'"),
        (
            {"model": "torchvision/resnet18", "blocks": ["layer5"]},
            "did you mean 'layer4'",
        ),
        ({"model": "torchvision/resnet18", "blocks": ["fc"]}, "a block gives no map"),
        ({"model": "torchvision/resnet18", "head": "layer4"}, "not the output of the head"),
        ({"model": "torchvision/resnet18", "weights": "pretrained"}, "not for the classes of the data"),
        (
            {
                "model": "torchvision/googlenet",
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
                "options": {"transform_input": True},
            },
            "would bring images to -1 to 1 twice",
        ),
        ({"model": "torchvision/squeezenet1_1", "input_size": 8}, "does not run on images of 8 pixels"),
    ],
)
def test_what_cannot_be_built_is_refused(wanted: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        build_network(num_classes=5, **{"input_size": 32, **wanted})


def test_blocks_and_head_can_be_named_also_of_timms_models() -> None:
    network = build_network("test_resnet", 5, input_size=32, blocks=["layer2", "layer4"], head="fc", seed=0).eval()
    plain: Any = build_network("test_resnet", 5, input_size=32, seed=0).eval()
    assert network.identity()["blocks"] == ["layer2", "layer4"]
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES).logits, plain(IMAGES).logits)


def test_new_keys_are_no_part_of_an_identity_that_does_not_use_them() -> None:
    assert {"blocks", "head"} & set(NetworkConfig(model="resnet18").for_identity()) == set()
    assert NetworkConfig(model="resnet18", blocks=("layer1",)).for_identity()["blocks"] == ["layer1"]


def test_the_names_of_classes_are_known_without_weights() -> None:
    assert class_names("torchvision/resnet18")[:2] == ["tench", "goldfish"]
    assert class_names("torchvision/resnet18.IMAGENET1K_V1")[999] == "toilet tissue"
