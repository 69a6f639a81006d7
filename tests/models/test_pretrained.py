from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from huggingface_hub import constants

from pipeline.errors import ModelError
from pipeline.models import build_network, pretrained


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache of this test alone, and a hub where nobody listens."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path / "hub"


@pytest.mark.parametrize("use", ["weights", "start"])
@pytest.mark.parametrize("name", ["resnet18", "hf-hub:nobody/nothing", "hf-hub:nobody/nothing@main"])
def test_without_a_network_it_fails_at_once(name: str, use: str) -> None:
    with pytest.raises(ModelError, match="name a weights file in place of `pretrained`") as caught:
        build_network(name, 1000, **{use: "pretrained"})  # type: ignore[arg-type]
    assert "http://127.0.0.1:9" in str(caught.value)


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_hub_that_says_nothing(mute: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", mute)
    monkeypatch.setattr(pretrained, "SECONDS", 0.3)
    with pytest.raises(ModelError, match="cannot be downloaded"):
        build_network("resnet18", 1000, "pretrained")


def test_a_name_that_is_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking up a name is no part of any client's timeouts."""
    never = threading.Event()

    class Session:
        def head(self, url: str, timeout: float) -> None:
            never.wait(120)

    monkeypatch.setattr("huggingface_hub.utils._http.get_session", Session)
    monkeypatch.setattr(pretrained, "SECONDS", 0.1)
    with pytest.raises(ModelError, match="none within"):
        build_network("resnet18", 1000, "pretrained")
    never.set()


def test_a_model_in_the_hubs_cache_needs_no_network(cache: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=6)
    folder = cache / "models--someone--thing"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs/main").write_text("0" * 40)
    safetensors.torch.save_file(model.state_dict(), snapshot / "model.safetensors")
    cfg = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 40, 40], "classifier": "fc"}
    text = {"architecture": "test_resnet", "num_classes": 6, "pretrained_cfg": cfg | {"num_classes": 6}}
    (snapshot / "config.json").write_text(json.dumps(text))
    network = build_network("hf-hub:someone/thing", 6, "pretrained")
    assert network.mean == (0.1, 0.2, 0.3)
    own = network.model.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())
    begun = build_network("hf-hub:someone/thing", 2, start="pretrained", seed=0)
    assert begun.kept is not None
    assert begun.kept.new == ("fc.weight", "fc.bias")


class Dangerous:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_nothing_in_a_folder_is_executed(tmp_path: Path) -> None:
    state = {"fc.weight": torch.ones(1), "more": Dangerous(tmp_path / "touched")}
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"architecture": "test_resnet", "num_classes": 6}))
    with pytest.raises(ModelError, match="cannot be built"):
        build_network(f"local-dir:{folder}", 6, "pretrained")
    assert not (tmp_path / "touched").exists()
