from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config import Section, bind
from pipeline.errors import ConfigError, ModelError
from pipeline.models import NetworkConfig, TeacherConfig, build_network


def test_a_seed_decides_alone_and_leaves_the_global_generator() -> None:
    before = torch.get_rng_state()
    first = build_network("cifar_resnet8", 10, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert build_network("cifar_resnet8", 10, seed=5).weights_digest() == first.weights_digest()
    assert build_network("cifar_resnet8", 10, seed=6).weights_digest() != first.weights_digest()


def test_without_a_seed_the_global_generator_decides() -> None:
    state = torch.get_rng_state()
    first = build_network("cifar_resnet8", 10).weights_digest()
    torch.set_rng_state(state)
    assert build_network("cifar_resnet8", 10).weights_digest() == first
    assert build_network("cifar_resnet8", 10).weights_digest() != first


def test_identity_is_plain_and_rebuilds_the_network() -> None:
    options = {"img_size": 32, "patch_size": 8, "depth": 2}
    network = build_network("vit_tiny_patch16_224", 10, options=options, mean=(0.1, 0.2, 0.3))
    identity = json.loads(json.dumps(network.identity()))
    assert identity == {
        "model": "vit_tiny_patch16_224",
        "options": options,
        "num_classes": 10,
        "input_size": 32,
        "mean": [0.1, 0.2, 0.3],
        "std": [0.25, 0.25, 0.25],
    }
    assert build_network(**identity).identity() == identity
    assert network.training


def test_timms_own_weights_bring_their_normalisation() -> None:
    network = build_network("test_resnet", 1000, weights="pretrained", offline=True)
    cfg = network.model.pretrained_cfg
    assert (network.mean, network.std, network.input_size) == (cfg["mean"], cfg["std"], cfg["input_size"][-1])
    changed = build_network("test_resnet", 1000, weights="pretrained", std=(1.0, 1.0, 1.0), offline=True)
    assert (changed.mean, changed.std) == (cfg["mean"], (1.0, 1.0, 1.0))
    assert build_network("test_resnet", 7, start="pretrained", offline=True).mean == cfg["mean"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": "cifar_resnet18"}, "did you mean 'cifar_resnet"),
        ({"model": "hub:someone/model"}, "unknown model"),
        ({"model": "local-dir:nowhere"}, "config.json"),
        ({"model": "resnet18.no_such_tag"}, "resnet18.no_such_tag cannot be built"),
        ({"model": "cifar_resnet8", "options": {"dept": 3}}, "dept"),
        ({"model": "cifar_resnet8", "options": {"num_classes": 3}}, "options.num_classes"),
        ({"model": "cifar_resnet8", "options": {"checkpoint_path": "x.pth"}}, "options.checkpoint_path"),
        ({"model": "cifar_resnet8", "weights": "pretrained"}, "name a weights file"),
        ({"model": "resnet18", "weights": "pretrained"}, "expected: 10 classes\n  got: 1000"),
        ({"model": "vit_tiny_patch16_224", "input_size": 32, "options": {"depth": 1}}, "img_size"),
        ({"model": "vit_tiny_patch16_224", "input_size": [224, 32], "options": {"depth": 1}}, "img_size"),
        ({"model": "cifar_resnet8", "mean": (0.5,) * 4}, "expected: 4 values of std\n  got: 3"),
        ({"model": "cifar_resnet8", "options": {"in_chans": 4}}, "that of channels from `mean`"),
    ],
)
def test_problems_name_the_way_out(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError) as caught:
        build_network(num_classes=10, **arguments)
    assert words in str(caught.value)


class Root(Section):
    teacher: TeacherConfig


def test_config_of_the_design() -> None:
    raw = {
        "model": "cifar_resnet56",
        "weights": "teachers/resnet56.safetensors",
        "mean": [0.5070, 0.4865, 0.4409],
        "std": [0.2673, 0.2564, 0.2761],
        "input_size": 32,
        "precision": "bfloat16",
        "micro_batch": 256,
    }
    teacher = bind({"teacher": raw}, Root, ["teacher"]).teacher
    assert teacher.weights == Path("teachers/resnet56.safetensors")
    assert teacher.device == "auto"
    assert NetworkConfig(model="resnet18", weights="pretrained").weights == "pretrained"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"model": "resnet18", "std": [0.1, 0.0, 0.1]}, "teacher.std.1"),
        ({"model": "resnet18", "mean": []}, "teacher.mean"),
        ({"model": "resnet18", "mean": [0.1, 0.1], "std": [0.1]}, "teacher.std: has 1 values and `mean` has 2"),
        ({"model": "resnet18", "input_size": [32]}, "teacher.input_size"),
        ({"model": "resnet18", "precision": "float16"}, "teacher.precision"),
        ({"modle": "resnet18"}, "did you mean 'model'?"),
    ],
)
def test_config_problems(raw: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        bind({"teacher": raw}, Root, ["teacher"])
    assert words in str(caught.value)


def test_equal_sides_are_one_number_and_others_are_height_and_width() -> None:
    square, number, other = (NetworkConfig(model="resnet18", input_size=size) for size in ([16, 16], 16, [16, 24]))
    assert square.for_identity() == number.for_identity()
    assert (square.input_size, other.input_size) == (16, (16, 24))
    assert json.loads(other.model_dump_json())["input_size"] == [16, 24]
