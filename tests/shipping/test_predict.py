"""`pipeline predict` says of a photograph what `evaluate` computes of it, once it is packed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from photo_experiment import FOLDER, NAMES, TEST, evaluated
from scipy.special import softmax

from pipeline.cli import main
from pipeline.data import PackedDataset, open_source, pack
from pipeline.data.sources.image_folder import Options
from pipeline.errors import DataError, ModelError
from pipeline.experiment.model_file import ModelFile
from pipeline.progress import Silent
from pipeline.shipping.photographs import PhotoReader
from pipeline.shipping.predicting import predictions
from pipeline.shipping.student import ShippedStudent
from pipeline.views.shrinking import shrink


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["predict", *arguments])


def test_it_is_what_evaluate_computes(flowers: Path):
    student = ShippedStudent.open(FOLDER)
    said = torch.stack([each.logits for each in predictions(student, map(Path, TEST)) if each.logits is not None])
    assert torch.equal(said, evaluated())
    assert len(said) == len(TEST)


def test_a_photograph_is_reduced_as_pixels_were_packed(flowers: Path, tmp_path: Path):
    seen = ModelFile.read(FOLDER).input
    assert "store" not in seen.model_dump()
    options = Options(path=Path("photos"), shorter_side=20, store="raw")
    pack(open_source(options), tmp_path / "raw.h5", Silent(), options=options, shrink=shrink)
    test = PackedDataset.open(tmp_path / "raw.h5").split("test")
    reader = PhotoReader(seen.model_copy(update={"store": "raw"}))
    for photo, image in zip(TEST, test.read(np.arange(test.count)), strict=True):
        assert np.array_equal(reader.read(Path(photo)), image.permute(1, 2, 0))


def test_names_and_probabilities_are_printed(flowers: Path):
    shown = json.loads(run(*TEST, "--model", str(FOLDER), "--json", "--top", "2").output)
    expected = softmax(evaluated().double().numpy(), axis=1)
    for photo, entry, row in zip(TEST, shown, expected, strict=True):
        assert entry["photo"] == photo
        order = np.argsort(-row)[:2]
        assert [each["name"] for each in entry["classes"]] == [NAMES[k] for k in order]
        assert [each["probability"] for each in entry["classes"]] == pytest.approx(row[order], rel=1e-5)
    text = run("photos/test", "--model", str(FOLDER))
    assert text.exit_code == 0
    lines = text.output.splitlines()
    assert [line.partition(":")[0] for line in lines] == TEST
    best = int(np.argmax(expected[0]))
    assert lines[0].startswith(f"{TEST[0]}: {NAMES[best]} {100 * expected[0, best]:.1f} %, ")


def test_what_cannot_be_read_is_named_and_the_others_are_done(flowers: Path, tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(TEST[0]).read_bytes()[:300])
    found = run(str(broken), TEST[1], "nowhere.png", "--model", str(FOLDER))
    assert found.exit_code == 2
    assert f"{TEST[1]}: " in found.output
    assert "2 of 3 photographs were not classified" in found.output
    assert str(broken) in found.output
    assert "No such file" in found.output
    assert "report it" not in found.output
    entries = json.loads(run(str(broken), TEST[1], "--model", str(FOLDER), "--json").stdout)
    assert "error" in entries[0]
    assert "classes" in entries[1]
    (tmp_path / "empty").mkdir()
    found = run(str(tmp_path / "empty"), "--model", str(FOLDER))
    assert found.exit_code == 2
    assert "the folder has no images" in found.output


def test_a_folder_that_says_nothing_is_refused_with_what_to_do(flowers: Path, tmp_path: Path):
    folder = shutil.copytree(FOLDER, tmp_path / "old")
    (folder / "model.json").unlink()
    found = run(TEST[0], "--model", str(folder))
    assert found.exit_code == 2
    assert "there is no model.json" in found.output
    assert "train-student" in found.output


def test_the_folder_of_weights_may_lie_anywhere_and_needs_no_configuration(flowers: Path, tmp_path: Path):
    folder = tmp_path / "shipped"
    folder.mkdir()
    for name in ("student.safetensors", "model.json"):
        shutil.copy(FOLDER / name, folder)
    assert run(TEST[0], "--model", str(folder)).output == run(TEST[0], "--model", str(FOLDER)).output


def test_an_image_with_other_channels_is_named(flowers: Path):
    with pytest.raises(ModelError, match="the images have 4 channels, and the network takes 3 or 1"):
        ShippedStudent.open(FOLDER).require_pixels(torch.zeros(1, 4, 12, 12, dtype=torch.uint8))


def test_code_that_a_folder_names_is_not_run_unless_it_is_named(flowers: Path, tmp_path: Path):
    folder = shutil.copytree(FOLDER, tmp_path / "foreign")
    raw = json.loads((folder / "model.json").read_text())
    raw["network"].update(model="evil.module:build", options={})
    (folder / "model.json").write_text(json.dumps(raw))
    with pytest.raises(DataError, match="code that you did not name"):
        ShippedStudent.open(folder)
    with pytest.raises(DataError, match="code that you did not name"):
        ShippedStudent.open(folder, "other.module:build")
    found = run(TEST[0], "--model", str(folder), "--code", "evil.module:build")
    assert "evil" in found.output  # it is looked for, and not there
    assert "did not name" not in found.output


def test_a_student_without_a_classifier_says_so(flowers: Path, tmp_path: Path):
    folder = shutil.copytree(FOLDER, tmp_path / "headless")
    raw = json.loads((folder / "model.json").read_text())
    raw["network"]["num_classes"] = 0
    (folder / "model.json").write_text(json.dumps(raw))
    found = run(TEST[0], "--model", str(folder))
    assert found.exit_code == 2
    assert "the student has no classifier" in found.output
