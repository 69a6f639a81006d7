"""Weights to begin with, and weights that are for other classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from experiment import source, student

from pipeline.commands import check
from pipeline.errors import CacheError, ConfigError, ModelError
from pipeline.models import build_network, load_weights
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher, evaluate

SMALL = "students.small.start=seven.pth"
STILL = "train.learning_rate=1e-9"


@pytest.fixture
def seven(here: Path) -> Path:
    """Weights of the small student's architecture, for seven classes."""
    network = build_network("cifar_resnet8", 7, input_size=8, options={"widths": [16, 16, 16]}, seed=9)
    torch.save(network.model.state_dict(), "seven.pth")
    return here


def test_a_student_begins_from_a_file(seven: Path, capsys: pytest.CaptureFixture[str]):
    folder = student("small", "kd", SMALL, STILL)
    theirs, ours = load_weights(Path("seven.pth")), load_weights(folder / "student.safetensors")
    assert f"starts with seven.pth: kept {len(theirs) - 2} of {len(theirs)} tensors; new: classifier" in (
        capsys.readouterr().out
    )
    torch.testing.assert_close(ours["conv1.weight"], theirs["conv1.weight"], atol=1e-6, rtol=0)
    fresh = build_network("cifar_resnet8", 4, input_size=8, options={"widths": [16, 16, 16]}, seed=0)
    torch.testing.assert_close(ours["fc.weight"], fresh.model.fc.weight, atol=1e-6, rtol=0)
    evaluate.run(source(SMALL, STILL, "objectives={kd: [{name: kd}]}"))  # of its own weights, not of the start's
    assert parse_yaml((folder / "config.yaml").read_text(), "it")["students"]["small"]["start"] == "seven.pth"


def test_a_students_weights_are_its_start(seven: Path, capsys: pytest.CaptureFixture[str]):
    student("small", "kd", SMALL)
    student("small", "kd", "students.small.weights=seven.pth")
    assert "already there" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"students\.small: .*leave them out, or `start`"):
        check.run(source("students.small.weights=a.pth", SMALL), as_json=False)


def test_another_start_is_another_student(seven: Path):
    student("small", "kd", SMALL)
    with pytest.raises(CacheError, match="another artifact"):
        student("small", "kd")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("students.small.start=nowhere.pth", r"students\.small: the weights cannot be read"),
        ("students.vit.start=seven.pth", r"students\.vit: the weights do not fit the model"),
        ("students.small={model: cifar_resnet8, start: pretrained}", r"timm has no weights of cifar_resnet8"),
        ("teacher={model: resnet18, weights: pretrained}", r"expected: 4 classes\n *got: 1000"),
        (
            "teacher={model: cifar_resnet8, input_size: 8, options: {widths: [16, 16, 16]}, weights: seven.pth}",
            "got: 7",
        ),
    ],
)
def test_check_tells_which_weights_do_not_fit(seven: Path, override: str, words: str):
    with pytest.raises(ConfigError, match=words) as error:
        check.run(source(override, "teacher_training=null"), as_json=False)
    if override.startswith("teacher"):
        assert "teacher_training: {start: ...}" in str(error.value)


def test_check_downloads_nothing(seven: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("huggingface_hub.file_download.hf_hub_download", None)
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", None)
    check.run(source("students.small={model: test_resnet, input_size: 40, start: pretrained}"), as_json=False)


@pytest.mark.parametrize("model", ["{model: test_resnet, weights: pretrained}"])
def test_cache_teacher_refuses_weights_for_other_classes(seven: Path, model: str):
    with pytest.raises(ModelError, match="is not for the classes of the data"):
        cache_teacher.run(source(f"teacher={model}", "store.path=new.zarr"), replace=False, wait=False)
