from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from hostile import bounded, changed_bytes, few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.models import Network, build_network, load_weights
from pipeline.models.fit import fit_weights
from pipeline.models.weights import digest_of


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network("cifar_resnet8", 10, seed=1)


def test_saved_weights_load_here_and_in_timm(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "student.safetensors"
    network.save(path)
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert build_network("cifar_resnet8", 10, path).weights_digest() == network.weights_digest()
    model = timm.create_model("cifar_resnet8", num_classes=10, checkpoint_path=path).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(images), network.model.eval()(images))


def test_saving_leaves_memory_formats_and_shared_weights_alone(network: Network, tmp_path: Path) -> None:
    twin = build_network("cifar_resnet8", 10, seed=1).to(memory_format=torch.channels_last)
    twin.model.layer1[0].bn2.weight = twin.model.layer1[0].bn1.weight
    twin.save(tmp_path / "a.safetensors")
    assert build_network("cifar_resnet8", 10, tmp_path / "a.safetensors").weights_digest() == twin.weights_digest()


def test_digest_from_its_definition() -> None:
    state = {"b": torch.tensor([1, 2]), "a": torch.tensor(1.5), "c": torch.ones(2, 1).bfloat16()}
    expected = b""
    for header, payload in (
        (["a", "float32", []], "0000c03f"),
        (["b", "int64", [2]], "01000000000000000200000000000000"),
        (["c", "bfloat16", [2, 1]], "803f803f"),
    ):
        text = json.dumps(header)
        expected += f"{len(text)}:{text}".encode() + bytes.fromhex(payload)
    assert digest_of(state) == "sha256:" + hashlib.sha256(expected).hexdigest()


def test_digest_sees_values_and_nothing_else(network: Network, tmp_path: Path) -> None:
    state = network.model.state_dict()
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    from_torch = build_network("cifar_resnet8", 10, tmp_path / "a.pth").to(memory_format=torch.channels_last)
    assert from_torch.weights_digest() == network.weights_digest()
    other = {**state, "fc.bias": state["fc.bias"] + 1e-3}
    assert digest_of(other) != digest_of(state)
    assert digest_of({**state, "fc.bias": state["fc.bias"].double()}) != digest_of(state)


def wrapped(state: dict[str, torch.Tensor], how: str) -> Any:
    prefixed = {f"module.{name}": value for name, value in state.items()}
    return {
        "plain": state,
        "state_dict": {"epoch": 3, "state_dict": state},
        "model": {"model": state, "optimizer": {"lr": 0.1}},
        "model_state": {"model_state": prefixed},
        "nested": {"model": {"state_dict": prefixed}},
    }[how]


@pytest.mark.parametrize("how", ["plain", "state_dict", "model", "model_state", "nested"])
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_are_unwrapped(network: Network, tmp_path: Path, how: str, zipped: bool) -> None:
    state = network.model.state_dict()
    path = tmp_path / "checkpoint.bin"
    torch.save(wrapped(state, how), path, _use_new_zipfile_serialization=zipped)
    loaded = load_weights(path)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_kind_is_seen_from_the_content(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    safetensors.torch.save_file(network.model.state_dict(), path)
    assert load_weights(path).keys() == network.model.state_dict().keys()


def test_counters_of_old_checkpoints_may_be_missing(network: Network, tmp_path: Path) -> None:
    state = {k: v for k, v in network.model.state_dict().items() if not k.endswith("num_batches_tracked")}
    safetensors.torch.save_file(state, tmp_path / "old.safetensors")
    assert build_network("cifar_resnet8", 10, tmp_path / "old.safetensors").weights_digest() == network.weights_digest()


class Dangerous:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_is_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": {"w": torch.ones(1)}, "args": Dangerous(tmp_path / "touched")}, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="needs Python code to be read, which is refused") as caught:
        load_weights(tmp_path / "a.pth")
    assert "safetensors" in str(caught.value)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_truncated_files(network: Network, tmp_path: Path, suffix: str, keep: float) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "pth":
        torch.save(network.model.state_dict(), path)
    else:
        network.save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ModelError, match="damaged"):
        load_weights(path)


@pytest.mark.parametrize("content", [b"hello, world", b"PK\x03\x04 not a zip", b"\x80\x02.", b"\x00" * 64])
def test_other_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ModelError, match=r"damaged|no weights"):
        load_weights(tmp_path / "a")


@pytest.mark.parametrize("content", [{"epoch": 3}, [torch.ones(1)], {}, {"state_dict": {"lr": 0.1}}])
def test_no_weights_inside(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ModelError, match="holds no weights"):
        load_weights(tmp_path / "a.pth")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        build_network("cifar_resnet8", 10, tmp_path / "absent.safetensors")


def test_weights_that_do_not_fit(network: Network, tmp_path: Path) -> None:
    state = dict(network.model.state_dict())
    del state["conv1.weight"]
    state["head.weight"] = torch.ones(1)
    safetensors.torch.save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(ModelError) as caught:
        build_network("cifar_resnet8", 12, tmp_path / "a.safetensors")
    text = str(caught.value)
    assert "missing 1 (conv1.weight)" in text
    assert "unexpected 1 (head.weight)" in text
    assert "mismatched 2 (fc.weight: model [12, 64], file [10, 64], fc.bias: model [12], file [10])" in text
    assert "number of classes" in text


def wrapped_in_itself() -> dict[str, Any]:
    loop: dict[str, Any] = {"w": torch.ones(1)}
    loop["state_dict"] = loop
    return loop


TRAPS: dict[str, Any] = {
    "a mapping that holds itself": wrapped_in_itself(),
    "wrapped a hundred times": functools.reduce(lambda inner, _: {"model": inner}, range(100), {"w": torch.ones(1)}),
    "sparse": {"w": torch.ones(3, 3).to_sparse()},
    "terabytes in four bytes": {"w": torch.ones(1).expand(2**40)},
    "overlapping rows": {"w": torch.as_strided(torch.ones(8), (7, 7), (0, 1))},
    "on no device": {"w": torch.ones(3, device="meta")},
    "numbers for names": {0: torch.ones(1)},
}


@pytest.mark.parametrize("content", TRAPS.values(), ids=TRAPS)
def test_traps_in_checkpoints_are_no_weights(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    with bounded(), pytest.raises(ModelError, match=r"holds no weights|is damaged|refused"):
        fit_weights(build_network("cifar_resnet8", 10).model, load_weights(tmp_path / "a.pth"), tmp_path / "a.pth")


def header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        header(b"{}", 2**60),
        header(b"", 2**63),
        header(b"[" * 100_000),
        header(b'{"w":{"dtype":"F32","shape":[1152921504606846976],"data_offsets":[0,4]}}') + bytes(4),
        header(b'{"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + bytes(4),
        header(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4611686018427387904]}}') + bytes(4),
        header(b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[4,0]}}') + bytes(4),
        header(b'{"w":{"dtype":"pickle","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
        header(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"w":1}') + bytes(4),
        header(b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}') + bytes(4),
    ],
)
def test_traps_in_safetensors_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with bounded(), pytest.raises(ModelError, match=r"damaged|no weights"):
        load_weights(tmp_path / "a.safetensors")


@few
@given(data=st.data())
def test_any_bytes(network: Network, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "weights"
    stream = io.BytesIO()
    torch.save({"state_dict": {"w": torch.ones(3), "v": torch.zeros(2, 2)}}, stream)
    tensors = {"w": torch.ones(3), "v": torch.zeros(2, 2)}
    whole = data.draw(st.sampled_from([stream.getvalue(), safetensors.torch.save(tensors)]))
    path.write_bytes(data.draw(changed_bytes(whole)))
    with bounded(), contextlib.suppress(ModelError):
        assert all(isinstance(value, torch.Tensor) for value in load_weights(path).values())
