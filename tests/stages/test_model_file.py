"""`model.json` beside a student's weights says all that one must know to run it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from experiment import COUNT, HOLDOUT, source, student

from pipeline.errors import DataError
from pipeline.experiment.model_file import ModelFile
from pipeline.models import build_network
from stages import evaluate


def kd(folder: Path, name: str = "small") -> Path:
    return folder / f"artifacts/tiny/students/{name}/kd/seed-0"


def test_it_says_how_a_student_is_built_and_what_it_sees(travelled: Path):
    said = json.loads((kd(travelled, "vit") / "model.json").read_text())
    assert (said["format"], said["version"], said["student"], said["objectives"]) == ("decant-model", 1, "vit", "kd")
    network = said["network"]
    assert network["model"] == "vit_tiny_patch16_224"
    assert network["options"]["embed_dim"] == 48
    assert (network["input_size"], network["num_classes"], network["reused_head"]) == ([16, 16], 4, False)
    assert (network["mean"], network["std"], network["interpolation"]) == ([0.5] * 3, [0.25] * 3, "bilinear")
    assert said["classes"] == ["0", "1", "2", "3"]
    assert said["input"] == {
        "channels": 1,
        "size": [8, 8],
        "decoding": {"orientation": "follow", "background": [255, 255, 255], "profile": "follow"},
        "shorter_side": None,
        "quality": 95,
        "stored": "pixels",
        "operations": [],
    }
    learnt = said["learnt"]
    assert (learnt["split"], learnt["samples"], learnt["holdout"], learnt["seed"]) == ("train", COUNT, HOLDOUT, 0)
    assert (learnt["teacher"], learnt["epochs"]) == ("cifar_resnet8", 2)
    assert [each["name"] for each in learnt["objectives"]] == ["hard-label", "kd"]
    assert learnt["objectives"][1]["temperature"] == 4
    metrics = json.loads((kd(travelled, "vit") / "metrics.json").read_text())
    assert said["holdout"] == metrics["holdout"]
    assert said["parameters"] == metrics["parameters"]


def test_the_network_can_be_built_from_it_alone(travelled: Path, tmp_path: Path):
    said = ModelFile.read(kd(travelled)).network
    weights = kd(travelled) / "student.safetensors"
    network = build_network(
        said.model, said.num_classes, weights=weights, input_size=said.input_size, mean=said.mean, std=said.std,
        options=said.options,
    )  # fmt: skip
    by_hand = build_network(
        "cifar_resnet8", 4, weights=weights, input_size=8, options={"widths": [16, 16, 16]}
    )  # fmt: skip
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(network.eval()(images).logits, by_hand.eval()(images).logits)


def test_the_card_says_it_for_people(travelled: Path):
    text = (kd(travelled) / "model-card.md").read_text()
    assert "`cifar_resnet8`" in text
    assert "8 x 8 pixels" in text
    assert f"{COUNT} samples of split `train`; {HOLDOUT} were held out" in text
    assert "`hard-label`, `kd`" in text
    assert "| top1 |" in text


def test_operations_and_names_are_those_of_the_evaluation(here: Path):
    fresh = "objectives={hard: {views: fresh, objectives: [{name: hard-label}]}}"
    folder = student("small", "hard", fresh, "evaluate.operations=[{name: center-crop, size: 6}]", "data.holdout=null")
    model = ModelFile.read(folder)
    assert model.input.size == (6, 6)
    assert [dict(each) for each in model.input.operations] == [{"name": "center-crop", "size": 6}]
    assert (model.learnt.holdout, model.holdout) == (0, None)
    assert "Nothing was held out" in (folder / "model-card.md").read_text()


def test_folders_of_older_versions_stay_valid(there: Path, capsys: pytest.CaptureFixture[str]):
    folder = kd(Path())
    for name in ("model.json", "model-card.md"):
        (folder / name).unlink()
    student("small", "kd")
    assert "already there" in capsys.readouterr().out
    evaluate.run(source())
    with pytest.raises(DataError, match=r"there is no model\.json") as error:
        ModelFile.read(folder)
    assert "train-student" in str(error.value)
    student("small", "kd", "train.epochs=1", replace=True)  # its files are not taken for somebody's
    assert ModelFile.read(folder).learnt.epochs == 1


def test_what_is_no_model_file_is_refused(travelled: Path, tmp_path: Path):
    folder = shutil.copytree(kd(travelled), tmp_path / "student")
    whole = json.loads((folder / "model.json").read_text())
    wrong = {
        "newer version": {**whole, "version": 2},
        r"network\.std": {**whole, "network": {**whole["network"], "std": [0.0]}},
        "unknown|extra": {**whole, "more": 1},
        "cannot be read": "{",
    }
    for message, value in wrong.items():
        (folder / "model.json").write_text(value if isinstance(value, str) else json.dumps(value))
        with pytest.raises(DataError, match=r"(?is)model\.json.*" + message):
            ModelFile.read(folder)
    with pytest.raises(DataError, match="no such folder"):
        ModelFile.read(tmp_path / "nowhere")


def test_it_is_the_same_for_the_same_student(here: Path):
    one, two = (student("small", "kd", output=Path(name)) for name in ("one", "two"))
    assert (one / "model.json").read_bytes() == (two / "model.json").read_bytes()
    assert (one / "model-card.md").read_bytes() == (two / "model-card.md").read_bytes()
