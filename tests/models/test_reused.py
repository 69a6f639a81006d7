from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.measuring.cost import macs, parameters
from pipeline.models import Network, WithReusedHead, build_network
from pipeline.models.reused import LiftProjector, Projector, ReusedHead, load_trained
from pipeline.models.weights import load_weights, save_weights
from pipeline.signals import LinearHead

CLASSES, WIDTH, NARROW = 5, 12, 6
VIT = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 3}


def small(seed: int = 0) -> Network:
    return build_network("cifar_resnet8", CLASSES, input_size=8, seed=seed)


def vit(seed: int = 0) -> Network:
    return build_network("vit_tiny_patch16_224", CLASSES, input_size=16, options=VIT, seed=seed)


def head(block: str = "block3", channels: int = 64, rectify: bool = True) -> ReusedHead:
    """Of random weights and statistics."""
    generator = torch.Generator().manual_seed(1)
    teacher = LinearHead(torch.zeros(CLASSES, WIDTH), torch.zeros(CLASSES))
    made = ReusedHead(Projector(block, channels, NARROW, WIDTH, rectify), teacher)
    for value in made.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) - (0.5 if value.ndim > 1 else 0.0))
    return made.eval()


def images(size: int = 8) -> Tensor:
    return torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def answered(state: dict[str, Tensor], maps: Tensor, rectify: bool = True) -> Tensor:
    """The logits of maps, from the tensors of a file."""
    x = maps.double()
    values = {name: value.double() for name, value in state.items()}
    for number, padding in enumerate((0, 1, 0)):
        x = F.conv2d(x, values[f"projector.{number}.linear.weight"], padding=padding)
        mean, variance, weight, bias = (
            values[f"projector.{number}.norm.{name}"][:, None, None]
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (variance + 1e-5).sqrt() * weight + bias
        x = x.clamp(min=0) if rectify or number < 2 else x
    return x.mean((2, 3)) @ values["classifier.weight"].T + values["classifier.bias"]


@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize(("make", "size", "channels"), [(small, 8, 64), (vit, 16, 48)])
def test_what_is_saved_says_the_same_when_it_is_read(
    make: Callable[[int], Network], size: int, channels: int, rectify: bool, tmp_path: Path
):
    block = list(make(0).taps)[-4]  # the deepest, before final, embedding and logits
    student = WithReusedHead(make(3), head(block, channels, rectify)).eval()
    student.save(tmp_path / "student.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.safetensors", "student.safetensors"]

    network = make(4)
    network.keep_taps([])  # what is kept for objectives does not matter
    network.model.load_state_dict(load_weights(tmp_path / "student.safetensors"))
    again = load_trained(network, tmp_path).eval()
    state = safetensors.torch.load_file(tmp_path / "head.safetensors")
    with torch.inference_mode():
        said, expected = again(images(size)), student(images(size))
        maps = student.network(images(size)).features[block]
    assert torch.equal(said.logits, expected.logits)
    assert said.head is not None
    assert not said.head.linear
    torch.testing.assert_close(said.logits.double(), answered(state, maps, rectify), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.head(said.embedding), said.logits)
    assert torch.equal(said.features[block], maps)


@pytest.mark.parametrize("classes", [CLASSES, None])
def test_a_lifted_map_is_saved_with_its_own_classifier_or_the_teachers(classes: int | None, tmp_path: Path):
    generator = torch.Generator().manual_seed(1)
    teacher = LinearHead(torch.randn(CLASSES, WIDTH, generator=generator), torch.randn(CLASSES, generator=generator))
    student = WithReusedHead(small(3), ReusedHead(LiftProjector("block3", 64, WIDTH, classes), teacher)).eval()
    student.save(tmp_path / "student.safetensors")
    state = safetensors.torch.load_file(tmp_path / "head.safetensors")
    assert state.keys() == {
        *(f"projector.{name}" for name in ("linear.weight", "norm.weight", "norm.bias")),
        *("classifier.weight", "classifier.bias"),
    }
    again = load_trained(small(3), tmp_path).eval()
    with torch.inference_mode():
        said, expected = again(images()), student(images())
        x = student.network(images()).features["block3"].permute(0, 2, 3, 1) @ state["projector.linear.weight"].T
        x = F.layer_norm(x, (WIDTH,), state["projector.norm.weight"], state["projector.norm.bias"]).mean((1, 2))
        torch.testing.assert_close(said.logits, x @ state["classifier.weight"].T + state["classifier.bias"])
    assert torch.equal(said.logits, expected.logits)
    assert torch.equal(state["classifier.weight"], teacher.weight) == (classes is None)
    trunk = sum(p.numel() for name, p in small().model.named_parameters() if not name.startswith("fc."))
    assert parameters(again) == trunk + 64 * WIDTH + 2 * WIDTH + WIDTH * CLASSES + CLASSES


def test_the_plain_part_is_a_file_of_timm(tmp_path: Path):
    student = WithReusedHead(small(), head())
    student.save(tmp_path / "student.safetensors")
    small().save(tmp_path / "plain.safetensors")
    assert (tmp_path / "student.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    timm.create_model("cifar_resnet8", num_classes=CLASSES, checkpoint_path=tmp_path / "student.safetensors")


def test_without_a_head_beside_it_a_network_is_as_it_was(tmp_path: Path):
    network = small()
    assert load_trained(network, tmp_path) is network


def test_the_same_head_is_the_same_bytes(tmp_path: Path):
    head().save(tmp_path / "a.safetensors")
    ReusedHead.load(tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_it_costs_is_what_an_answer_takes():
    network, own = small(), head()
    convolutions = NARROW * 64 + 9 * NARROW**2 + NARROW * WIDTH
    norms, classifier = 2 * (2 * NARROW + WIDTH), WIDTH * CLASSES
    plain = network.model
    trunk = sum(p.numel() for name, p in plain.named_parameters() if not name.startswith("fc."))
    assert parameters(WithReusedHead(network, own)) == trunk + convolutions + norms + classifier + CLASSES
    cells = 2 * 2  # of block3 of images of 8 x 8
    without = macs(network, (3, 8, 8)) - 64 * CLASSES
    assert macs(WithReusedHead(network, own), (3, 8, 8)) == without + cells * convolutions + classifier


def test_the_classifier_runs_in_float32_under_autocast():
    student = WithReusedHead(small(), head()).eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        said = student(images())
    assert said.logits.dtype == said.embedding.dtype == torch.float32


@pytest.mark.parametrize(("block", "channels"), [("block4", 64), ("block3", 32), ("embedding", 32), ("logits", 3)])
def test_the_head_of_another_network_is_refused(block: str, channels: int):
    with pytest.raises(ModelError, match="no map for the projection") as error:
        WithReusedHead(small(), head(block, channels))
    assert f"{block} with {channels} channels" in str(error.value)
    assert "block3 [64, 2, 2]" in str(error.value)


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "head.safetensors"
    state, facts = head().state_dict(), {"reused": '{"block": "block3", "rectify": true}'}

    def refused(match: str, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        save_weights(path, state, metadata)
        with pytest.raises(ModelError, match=match):
            ReusedHead.load(path)

    what = "does not hold what stands in for a student's head"
    refused(what, state)
    refused(what, state, {"reused": "{"})
    refused(what, state, {"reused": "[]"})
    refused(what, state, {"reused": "{}"})
    refused(what, small().model.state_dict(), facts)
    refused(what, {**state, "classifier.weight": torch.zeros(3)}, facts)
    refused("mismatched 1", {**state, "classifier.bias": torch.zeros(3)}, facts)
    refused("unexpected 1", {**state, "more": torch.zeros(3)}, facts)
    lifted = {"reused": '{"block": "block3", "rectify": false, "lift": true, "own": true}'}
    refused(what, state, lifted)
    refused(what, {**state, "projector.linear.weight": torch.zeros(3)}, lifted)
    torch.save(state, path)  # a checkpoint has no metadata
    with pytest.raises(ModelError, match=f"{what}|damaged"):  # as torch reads it, by its name or by its content
        ReusedHead.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ModelError, match="damaged"):
        ReusedHead.load(path)
