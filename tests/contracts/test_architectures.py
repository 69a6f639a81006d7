"""What every architecture of ours must keep, found by its file: the first model that the file registers with timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from contracts.keeping import require_kept
from torch import Tensor

from pipeline import plugins
from pipeline.contracts.architectures import ArchitectureContract
from pipeline.models import Network, build_network
from pipeline.models.pretrained import ARCHITECTURES, own_models

CLASSES = 7


def registered(file: str) -> list[str]:
    """The models of a file, in the order of their names."""
    module = plugins.load(ARCHITECTURES, file, "model").__name__
    return [name for name in own_models() if timm.model_entrypoint(name).__module__ == module]


@pytest.fixture(scope="module", params=plugins.names(ARCHITECTURES))
def model(request: pytest.FixtureRequest) -> str:
    found = registered(request.param)
    assert found, "the file registers no model"
    return found[0]


@pytest.fixture(scope="module")
def network(model: str) -> Network:
    return build_network(model, CLASSES, seed=0)


def pixels(network: Network, count: int = 3) -> Tensor:
    shape = (count, 3, network.input_size, network.input_size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(3), dtype=torch.uint8)


def normalised(network: Network, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    return (images.float() / 255 - mean) / std


def test_contract(model: str) -> None:
    """What `pipeline contract` tries; nothing is left out of one of ours."""
    require_kept(ArchitectureContract(model))


def test_its_names_are_not_those_of_timm(model: str) -> None:
    assert not hasattr(timm.models, model)


def test_logits_are_those_of_the_model_itself_and_of_its_head(network: Network) -> None:
    images = pixels(network)
    with torch.no_grad():
        said, own = network.eval()(images), network.model(normalised(network, images))
    torch.testing.assert_close(said.logits, own, rtol=1e-4, atol=1e-5)
    assert said.head is not None, "get_classifier() is not the linear layer behind forward_head(pre_logits=True)"
    torch.testing.assert_close(said.head(said.embedding), said.logits, rtol=1e-4, atol=1e-5)


def test_a_student_begins_from_weights_for_other_classes(model: str, network: Network, tmp_path: Path) -> None:
    network.save(tmp_path / "weights.safetensors")
    other = build_network(model, CLASSES + 1, start=tmp_path / "weights.safetensors", seed=1)
    assert other.kept is not None
    changed = [
        name
        for name, value in other.model.state_dict().items()
        if value.shape != network.model.state_dict()[name].shape or not value.equal(network.model.state_dict()[name])
    ]
    classifier = next(name for name, module in other.model.named_modules() if module is other.model.get_classifier())
    assert changed
    assert all(name.startswith(f"{classifier}.") for name in changed)
