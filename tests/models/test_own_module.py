"""A module of the user's own is built by the name of its factory, and never by the name in somebody else's file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import DataError, ModelError
from pipeline.experiment.networks import trained_network
from pipeline.models import NetworkConfig, build_network

CODE = """
from torch import nn

def small(num_classes, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(width, num_classes))

def grey(num_classes, in_chans=3):
    return nn.Sequential(nn.Conv2d(in_chans, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(4, num_classes))

def seven():
    return small(7)

def broken():
    raise RuntimeError("no such file")

def nothing():
    return 3

class Other(nn.Module):
    def __init__(self, num_classes, what):
        super().__init__()
        self.what, self.conv, self.fc = what, nn.Conv2d(3, 4, 3, 2, 1), nn.Linear(4, num_classes)

    def forward(self, x):
        x = self.conv(x)
        if self.what == "batch":
            x = (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True)
        if self.what == "dropout":
            x = nn.functional.dropout(x)
        logits = self.fc(x.relu().mean((2, 3)))
        return {"logits": {"logits": logits}, "scores": {"scores": logits}}.get(self.what, logits)
"""
IMAGES = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    Path("own_module_test.py").write_text(CODE)
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("own_module_test", None)


def test_a_factory_in_the_working_directory_is_called(tmp_path: Path) -> None:
    network = build_network("own_module_test:small", 5, input_size=8, options={"width": 6}, seed=0).eval()
    assert sys.path[0] == str(tmp_path)  # for processes that are started later
    assert network.taps == {"block1": (6, 4, 4), "embedding": (6,), "logits": (5,)}
    with torch.no_grad():
        torch.testing.assert_close(network(IMAGES).logits, network.model((IMAGES / 255 - 0.5) / 0.25))
    network.save(tmp_path / "a.safetensors")
    again = build_network(network.name, 5, tmp_path / "a.safetensors", 8, options={"width": 6})
    assert again.weights_digest() == network.weights_digest()
    assert NetworkConfig(model="own_module_test:small").described_by == (Path("own_module_test.py"),)


def test_a_factory_gets_the_number_of_channels_if_it_has_an_argument_for_it() -> None:
    one = {"mean": [0.5], "std": [0.25], "input_size": 8}
    assert build_network("own_module_test:grey", 5, seed=0, **one)(IMAGES[:, :1]).logits.shape == (2, 5)
    assert build_network("own_module_test:grey", 5, seed=0, input_size=8)(IMAGES).logits.shape == (2, 5)
    with pytest.raises(ModelError, match=r"images of 8 pixels and 1 channels[\s\S]*`mean` and `std` of three channels"):
        build_network("own_module_test:small", 5, seed=0, **one)


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        ({"model": "own_module_test:smal"}, r"has no 'smal'[\s\S]*did you mean 'small'"),
        ({"model": "own_module_tests:small"}, "there is no module 'own_module_tests'"),
        ({"model": "own_module_test:small", "options": {"widht": 6}}, "did you mean 'width'"),
        ({"model": "own_module_test:broken"}, "RuntimeError: no such file"),
        ({"model": "own_module_test:nothing"}, "makes no network"),
        ({"model": "own_module_test:seven"}, "logits of other classes than the data"),
        ({"model": "own_module_test:small", "weights": "pretrained"}, "there are no weights"),
        (
            {"model": "own_module_test:Other", "options": {"what": "scores"}},
            "gives no logits[\\s\\S]*got: dict of scores",
        ),
        ({"model": "own_module_test:Other", "options": {"what": "batch"}}, "other outputs beside other images"),
        ({"model": "own_module_test:Other", "options": {"what": "dropout"}}, "other outputs each time"),
    ],
)
def test_what_cannot_be_built_is_refused(wanted: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        build_network(num_classes=5, input_size=8, **wanted)


def test_logits_may_be_one_of_the_outputs_by_name() -> None:
    plain, named = (
        build_network("own_module_test:Other", 5, input_size=8, options={"what": what}, seed=0).eval()
        for what in ("plain", "logits")
    )
    assert named.taps == plain.taps == {"block1": (4, 4, 4), "embedding": (4,), "logits": (5,)}
    with torch.no_grad():
        assert torch.equal(named(IMAGES).logits, plain(IMAGES).logits)


def test_a_number_of_classes_of_its_own_is_no_problem_before_there_is_data() -> None:
    assert build_network("own_module_test:seven", 10, input_size=8, any_classes=True).num_classes == 7
    assert build_network("own_module_test:seven", 7, input_size=8).num_classes == 7
    assert build_network("own_module_test:seven", 2, input_size=8, classes=[6, 1]).num_classes == 2


def test_the_folder_of_a_run_cannot_name_code_by_itself(tmp_path: Path) -> None:
    Path("config.yaml").write_text(
        "teacher: {mean: null, std: null}\n"
        "students: {small: {model: 'os:system', options: {command: 'touch executed'}}}\n"
    )
    for configured in ("resnet18", "os:system"):
        with pytest.raises(DataError, match="code that the configuration does not name"):
            trained_network(tmp_path, "small", 5, NetworkConfig(model=configured))
    assert not Path("executed").exists()


def test_without_a_classifier_a_network_ends_in_its_embedding(tmp_path: Path) -> None:
    whole = build_network("own_module_test:small", 5, input_size=8, seed=0).eval()
    whole.save(tmp_path / "a.safetensors")
    headless = build_network("own_module_test:small", 0, tmp_path / "a.safetensors", 8).eval()
    assert headless.taps == {"block1": (4, 4, 4), "embedding": (4,)}
    fixed = build_network("own_module_test:seven", 0, input_size=8)  # takes no number of classes: it says embeddings
    assert fixed.taps["embedding"] == (7,)
    with torch.no_grad():
        said = headless(IMAGES)
        torch.testing.assert_close(said.embedding, whole(IMAGES).embedding)
    assert said.logits.shape == (2, 0)
    assert headless.num_classes == headless.identity()["num_classes"] == 0
