"""A teacher that is a file of ONNX says what the module says that it was exported from."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pipeline.config import Section
from pipeline.errors import ModelError
from pipeline.experiment.sections import StudentConfig
from pipeline.models import Network, TeacherConfig, build_network

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
IMAGES = torch.randint(0, 256, (5, 3, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


class Small(nn.Module):
    """Returns logits, its embedding and a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.conv(x).relu()
        embedding = maps.mean((2, 3))
        return self.fc(embedding), embedding, maps


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The module, and files of it: for any batch, and for batches of two."""
    folder = tmp_path_factory.mktemp("onnx")
    torch.manual_seed(0)
    module = Small().eval()
    names = ["logits", "embedding", "maps"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        for name, axes in {"any": {key: {0: "B"} for key in ("x", *names)}, "two": None}.items():
            torch.onnx.export(
                module,
                (torch.zeros(2, 3, 8, 8),),
                str(folder / f"{name}.onnx"),
                input_names=["x"],
                output_names=names,
                dynamic_axes=axes,
                dynamo=False,
            )
    return {"module": module, "any": str(folder / "any.onnx"), "two": str(folder / "two.onnx")}


def teacher(model: str, count: int = 5, **how: Any) -> Network:
    how = {"mean": MEAN, "std": STD, "blocks": ["maps"], "options": {"embedding": "embedding"}} | how
    return build_network(model, count, **how).eval()


@pytest.mark.parametrize("batch", ["any", "two"])
def test_outputs_are_those_of_the_module(exported: dict[str, Any], batch: str) -> None:
    network = teacher(exported[batch])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    with torch.inference_mode():
        logits, embedding, maps = exported["module"]((IMAGES / 255 - mean) / std)
        said = network(IMAGES)
    torch.testing.assert_close(said.logits, logits)
    torch.testing.assert_close(said.embedding, embedding)
    torch.testing.assert_close(said.features["block1"], maps)
    assert said.head is None
    assert network.taps == {"block1": (6, 4, 4), "embedding": (6,), "logits": (5,)}
    assert network.input_size == 8
    assert network.weights_digest() == "sha256:" + hashlib.sha256(Path(exported[batch]).read_bytes()).hexdigest()
    assert network.identity()["blocks"] == ["maps"]
    assert exported[batch] not in str(network.identity())  # the file may be moved


def test_classes_are_chosen_and_a_head_is_left_out(exported: dict[str, Any]) -> None:
    whole = teacher(exported["any"])
    chosen = teacher(exported["any"], 2, classes=[4, 1])
    headless = teacher(exported["any"], 0)
    with torch.inference_mode():
        said = whole(IMAGES)
        torch.testing.assert_close(chosen(IMAGES).logits, said.logits[:, [4, 1]])
        torch.testing.assert_close(headless(IMAGES).embedding, said.embedding)
        assert headless(IMAGES).logits.shape == (5, 0)
    assert "logits" not in headless.taps
    assert chosen.identity()["classes"] == [4, 1]


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"blocks": ["map"]}, "did you mean 'maps'"),
        ({"blocks": ["embedding"]}, "a block gives no map"),
        ({"options": {"logits": "maps"}}, "an output is no vector"),
        ({"options": {"widths": 3}}, "no option 'widths'"),
        ({"mean": (0.5,), "std": (0.5,)}, "does not take images"),
        ({"input_size": 16, "blocks": ["maps"]}, "does not run on images of 16 pixels"),
        ({"classes": [0, 1, 2]}, "must be chosen for each"),
        ({"start": "pretrained"}, "holds its own weights"),
    ],
)
def test_what_does_not_fit_is_refused(exported: dict[str, Any], how: dict[str, Any], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        teacher(exported["any"], **how)
    with pytest.raises(ModelError, match="logits of other classes"):
        teacher(exported["any"], 4)


def test_weights_in_a_file_beside_belong_to_the_digest_and_to_what_dvc_depends_on(tmp_path: Path) -> None:
    """As torch's exporter writes them by default. Every other part of the two files is the same."""
    import onnx

    digests, said = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        file = tmp_path / str(seed) / "teacher.onnx"
        file.parent.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter
            torch.onnx.export(Small().eval(), (torch.zeros(2, 3, 8, 8),), str(file), dynamo=False)
        apart = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
        onnx.save_model(onnx.load(str(file)), str(file), **apart)
        network = build_network(str(file), 5, mean=MEAN, std=STD).eval()
        digests.append(network.weights_digest())
        said.append(network(IMAGES).logits)
        assert TeacherConfig(model=str(file), mean=MEAN, std=STD).described_by == (file, file.parent / "weights.bin")
    one, other = (tmp_path / str(seed) / "teacher.onnx" for seed in (0, 1))
    assert one.read_bytes() == other.read_bytes()
    assert not torch.equal(*said)
    assert digests[0] != digests[1]
    (one.parent / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"(?s)weights\.bin.*copy the files of its weights"):
        build_network(str(one), 5, mean=MEAN, std=STD)
    other.write_bytes(other.read_bytes().replace(b"weights.bin", b"../ghts.bin"))
    with pytest.raises(ModelError, match="outside the folder"):
        build_network(str(other), 5, mean=MEAN, std=STD)


class Whole(nn.Module):
    """Returns logits, and with them a number for the whole batch, which may be among them."""

    def __init__(self, *, mixed: bool) -> None:
        super().__init__()
        self.small, self.mixed = Small(), mixed

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.small(x)[0]
        return logits - logits.mean() if self.mixed else logits, logits.mean()


def test_outputs_of_a_batch_are_none_of_an_image(tmp_path: Path) -> None:
    for mixed in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter
            file = str(tmp_path / f"{mixed}.onnx")
            torch.onnx.export(Whole(mixed=mixed).eval(), (torch.zeros(2, 3, 8, 8),), file, dynamo=False)
    assert build_network(str(tmp_path / "False.onnx"), 5, mean=MEAN, std=STD).taps == {"logits": (5,)}
    with pytest.raises(ModelError, match="other outputs beside other images"):
        build_network(str(tmp_path / "True.onnx"), 5, mean=MEAN, std=STD)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not one that onnxruntime runs"):
        teacher(str(tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match="cannot be read"):
        teacher(str(tmp_path / "b.onnx"))


@pytest.mark.parametrize(
    ("section", "values", "what"),
    [
        (StudentConfig, {"mean": MEAN, "std": STD}, "cannot be trained"),
        (TeacherConfig, {}, "`mean` and `std` are missing"),
    ],
)
def test_sections_refuse_what_onnx_cannot(section: type[Section], values: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        section.model_validate({"model": "teacher.onnx", **values})
