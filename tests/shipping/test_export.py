"""`pipeline export` writes a student for other programs, checks it, and says what each format costs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from photo_experiment import COUNT, FOLDER, NAMES, evaluated

from pipeline.cli import main
from pipeline.errors import ConfigError, ModelError
from pipeline.experiment.model_file import ModelFile
from pipeline.shipping import exporting
from pipeline.shipping.exporting import export, opened_for_export
from pipeline.shipping.measuring import refuse_other_logits
from pipeline.shipping.student import ShippedStudent

EXPORTS = Path("artifacts/flowers/exports/vit/hard/seed-0")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", "--config", "flowers.yaml", *arguments])


@pytest.fixture
def there(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with every format of the student, as the working directory. Not to be changed."""
    monkeypatch.chdir(shipped)
    return shipped


def stored_views() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The views of the test split that evaluation sees: what exports take."""
    return np.load("views.npy")


@pytest.mark.long
def test_a_table_says_what_each_format_costs_and_how_good_it_is(there: Path):
    table = json.loads((EXPORTS / "export.json").read_text())
    assert list(table) == ["student", "split", "threads", "formats"]  # and docs/commands.md has them
    assert (table["student"], table["split"], table["threads"]) == ("vit/hard/seed-0", "test", 1)
    rows = {row["format"]: row for row in table["formats"]}
    assert list(rows) == ["student", "onnx", "onnx-int8", "timm", "torch-export"]
    labels = np.repeat(np.arange(len(NAMES)), COUNT)
    right = float((evaluated().argmax(1).numpy() == labels).mean())
    for name, row in rows.items():
        folder = FOLDER if name == "student" else EXPORTS / name
        own = {"model.onnx", "model.pt2", "model.safetensors", "config.json", "student.safetensors"}
        assert row["bytes"] == sum(path.stat().st_size for path in folder.iterdir() if path.name in own and
                                   (name != "student" or path.name == "student.safetensors"))  # fmt: skip
        assert set(row["latency_ms"]) == {"1", "32"}
        assert min(row["latency_ms"].values()) > 0
        if name in ("student", "onnx", "torch-export"):
            assert row["top1"] == pytest.approx(right)
        if name != "student":
            assert ModelFile.read(folder) == ModelFile.read(FOLDER)


@pytest.mark.long
def test_the_same_again_is_already_there_and_not_measured_twice(there: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.stat().st_mtime_ns for path in EXPORTS.glob("*/*")}
    table = json.loads((EXPORTS / "export.json").read_text())

    def never(*arguments: object) -> float:
        raise AssertionError("it was measured before")

    monkeypatch.setattr(exporting, "latency", never)
    found = run("--student", "vit", "--objectives", "hard", "--threads", "1", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == {"folder": EXPORTS.as_posix(), **table}
    assert found.output.count("already there") == 4
    assert "top-1 on split 'test'; on the CPU with 1 thread" in found.output
    assert {path: path.stat().st_mtime_ns for path in EXPORTS.glob("*/*")} == before
    assert json.loads((EXPORTS / "export.json").read_text()) == table


@pytest.mark.long
def test_plain_onnxruntime_says_what_the_evaluation_does(there: Path):
    session = onnxruntime.InferenceSession(EXPORTS / "onnx/model.onnx", providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape[1:]) == ("images", "tensor(uint8)", [3, 12, 12])
    views = stored_views()
    for count in (1, len(views)):
        (logits,) = session.run(["logits"], {"images": views[:count]})
        np.testing.assert_allclose(logits, evaluated().numpy()[:count], atol=1e-5)


@pytest.mark.long
def test_a_program_of_torch_needs_nothing_else(there: Path):
    module = torch.export.load(EXPORTS / "torch-export/model.pt2").module()
    views = torch.from_numpy(stored_views())
    for count in (1, len(views)):
        torch.testing.assert_close(module(views[:count]), evaluated()[:count], atol=1e-5, rtol=1e-5)


@pytest.mark.long
def test_timm_loads_its_folder_and_prepares_images_as_the_evaluation_does(there: Path):
    model = timm.create_model(f"local-dir:{EXPORTS / 'timm'}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, 8, 8)
    assert (list(data["mean"]), list(data["std"])) == ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])
    config = json.loads((EXPORTS / "timm/config.json").read_text())
    assert config["architecture"] == "vit_tiny_patch16_224"
    assert config["label_names"] == list(NAMES)
    with torch.inference_mode():
        student = ShippedStudent.open(FOLDER)
        views = torch.from_numpy(stored_views())
        torch.testing.assert_close(model(student.own.pixels(views)), evaluated(), atol=1e-5, rtol=1e-5)


@pytest.mark.long
def test_an_export_keeps_few_views_and_not_all_that_it_was_calibrated_on(there: Path):
    calibration = torch.zeros(1000, 3, 8, 8, dtype=torch.uint8)
    exported = opened_for_export(ShippedStudent.open(FOLDER), calibration)
    assert exported.views.untyped_storage().nbytes() == 4 * 3 * 8 * 8


@pytest.mark.long
def test_eight_bits_are_close_and_pixels_keep_all_of_theirs(there: Path):
    path = EXPORTS / "onnx-int8/model.onnx"
    graph = onnx.load(path).graph
    made = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    inputs = [[made[name].op_type for name in node.input[:2] if name in made] for node in products]
    quantised = [kinds for kinds in inputs if kinds and set(kinds) == {"DequantizeLinear"}]
    left = [node for node in products if any(name.endswith(("resize_rows", "resize_columns")) for name in node.input)]
    assert len(left) == 2
    assert len(quantised) >= len(products) - 3
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": stored_views()})
    expected = evaluated().numpy()
    assert 0 < np.abs(logits - expected).max() < 0.2 * np.abs(expected).max()


@pytest.mark.long
def test_no_file_names_a_path_of_this_machine(there: Path):
    home = str(Path(exporting.__file__).parents[2]).encode()
    for path in EXPORTS.glob("*/*"):
        assert home not in path.read_bytes(), path
        assert b"site-packages" not in path.read_bytes(), path


def test_what_does_not_say_the_same_is_not_kept(flowers: Path, tmp_path: Path):
    exported = opened_for_export(ShippedStudent.open(FOLDER), None)
    with torch.no_grad():
        exported.module.model.head.bias.add_(0.01)  # type: ignore[union-attr,operator]
    with pytest.raises(ModelError, match="does not say what the student says"):
        export(exported, ["torch-export"], tmp_path / "out", split=None, threads=1)
    assert not (tmp_path / "out/torch-export").exists()


def test_rounding_is_allowed_and_no_more(flowers: Path):
    student = ShippedStudent.open(FOLDER)
    exported = opened_for_export(student, None)
    most = 1e-4
    for shift, fine in ((0.5 * most, True), (2 * most, False), (float("nan"), False)):
        runner = exporting.ExportRunner(lambda views, by=shift: student.logits(views) + by, lambda views: views)
        if fine:
            refuse_other_logits("it", exported, runner)
        else:
            with pytest.raises(ModelError):
                refuse_other_logits("it", exported, runner)


def test_a_folder_is_enough_without_data(flowers: Path, tmp_path: Path):
    found = run("--model", str(FOLDER), "--output", str(tmp_path / "out"), "--format", "timm", "--threads", "1")
    assert found.exit_code == 0, found.output
    assert "no accuracy: the packed data set is not at hand" in found.output
    assert {path.name for path in (tmp_path / "out/timm").iterdir()} == {
        ".fingerprint", "config.json", "model-card.md", "model.json", "model.safetensors",
    }  # fmt: skip
    refused = run("--model", str(FOLDER), "--output", str(tmp_path / "out"), "--format", "onnx-int8")
    assert refused.exit_code == 2
    assert "8 bits need views" in refused.output


def test_another_student_is_not_replaced_unless_it_is_asked_for(flowers: Path, tmp_path: Path):
    out = ("--output", str(tmp_path / "out"), "--format", "timm", "--threads", "1")
    assert run("--model", str(FOLDER), *out).exit_code == 0
    other = shutil.copytree(FOLDER, tmp_path / "other")
    raw = json.loads((other / "model.json").read_text())
    raw["classes"] = ["a", "b", "c"]
    (other / "model.json").write_text(json.dumps(raw))
    assert "another artifact is published" in run("--model", str(other), *out).output
    assert run("--model", str(other), *out, "--replace").exit_code == 0
    assert json.loads((tmp_path / "out/timm/config.json").read_text())["label_names"] == ["a", "b", "c"]


def test_what_is_asked_wrongly_is_said_at_once(flowers: Path, tmp_path: Path):
    assert "or the folder of a student by --model" in run().output
    assert "--model needs --output" in run("--model", str(FOLDER)).output
    found = run("--student", "vit", "--objectives", "hard", "--format", "onx")
    assert found.exit_code == 2
    assert "did you mean 'onnx'" in found.output
    assert "did you mean 'vit'" in run("--student", "vitt", "--objectives", "hard").output
    found = run("--student", "conv", "--objectives", "hard")
    assert "pipeline train-student --config flowers.yaml --student conv --objectives hard --seed 0" in found.output
    with pytest.raises(ConfigError):
        exporting.format_named("nothing")


def test_a_configuration_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found = run("--student", "vit", "--objectives", "hard")
    assert found.exit_code == 2
    assert "flowers.yaml: cannot be read: No such file" in found.output
