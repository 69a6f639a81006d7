"""Teachers from weights that are good already: a linear probe, fine-tuning, and both."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cases import case
from experiment import CLASSES, begin, content, source
from safetensors.torch import load_file

import stages.train_teacher
from pipeline.commands import check, dvc_file
from pipeline.config import bind_each
from pipeline.errors import CacheMismatch, ConfigError, ModelError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import SECTIONS
from pipeline.experiment.teacher_runs import summary_lines
from pipeline.measuring.score import Score
from pipeline.models import build_network
from pipeline.progress import Silent
from pipeline.training import ProbeResult
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher, prepare_data, train_teacher

pytestmark = pytest.mark.usefixtures("few_penalties")

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = Path("artifacts/teacher/teacher.safetensors")
START = "teacher_training.start=start.safetensors"
PROBE = (START, "teacher_training.freeze=backbone")
TUNED = (START, "teacher_training.epochs=3", "teacher_training.layer_decay=0.8", "teacher_training.patience=2")


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, and weights of a network with seven classes."""
    folder = begin(tmp_path)
    monkeypatch.chdir(folder)
    prepare_data.run(source(), replace=False)
    build_network("cifar_resnet8", 7, input_size=8, seed=9).save(Path("start.safetensors"))
    return folder


def train(*overrides: str, replace: bool = False) -> dict[str, Any]:
    """The metrics of a teacher."""
    train_teacher.run(source(*overrides), replace=replace, wait=False)
    metrics: dict[str, Any] = json.loads(WEIGHTS.with_name("metrics.json").read_text())
    return metrics


def test_a_probe_is_a_teacher_whose_classifier_alone_is_new(begun: Path, capsys: pytest.CaptureFixture[str]):
    metrics = train(*PROBE)
    old, new = load_file("start.safetensors"), load_file(WEIGHTS)
    assert {name for name in old if old[name].shape != new[name].shape or bool((old[name] != new[name]).any())} == {
        "fc.weight",
        "fc.bias",
    }
    assert new["fc.weight"].shape == (CLASSES, 64)
    assert metrics["probe"]["holdout"] == pytest.approx(metrics["holdout"]["top1"])
    assert (metrics["epochs"], metrics["probe"]["views"]) == (0, 4)
    files = {".fingerprint", "config.yaml", "history.csv", "holdout.csv", "metrics.json", "teacher.safetensors"}
    assert {path.name for path in WEIGHTS.parent.iterdir()} == files
    printed = capsys.readouterr().out
    assert "starts with start.safetensors: kept" in printed
    assert f"probe        {metrics['holdout']['top1']:.2%} on the holdout (4 views of each image" in printed
    cache_teacher.run(source(*PROBE), replace=False, wait=False)


def test_it_is_there_the_second_time_wherever_the_weights_lie_by_then(begun: Path, capsys: pytest.CaptureFixture[str]):
    train(*PROBE)
    Path("start.safetensors").rename("moved.safetensors")
    capsys.readouterr()
    train(*PROBE, "teacher_training.start=moved.safetensors")
    assert capsys.readouterr().out == "artifacts/teacher: already there\n"


def test_what_the_probe_depends_on_makes_another_teacher(begun: Path):
    build_network("cifar_resnet8", 7, input_size=8, seed=8).save(Path("other.safetensors"))
    train(*PROBE)
    before = content(WEIGHTS.parent)
    for override in (
        "teacher_training.probe=1",
        "teacher_training.class_weights=balanced",
        "teacher_training.label_smoothing=0.1",
        "evaluate.operations=[{name: center-crop, size: 6}]",
        "data.holdout.seed=1",
        "teacher_training.start=other.safetensors",
        "views.seed=1",
    ):
        with case(override=override):
            with pytest.raises(CacheMismatch, match="another artifact is published"):
                train(*PROBE, override)
            assert content(WEIGHTS.parent) == before


def test_probe_and_fine_tuning_go_on_where_they_were_interrupted(
    begun: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Interrupted(Silent):
        begun: str = ""

        def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
            Interrupted.begun += f"{what}, "

        def advance(self, amount: int, note: str = "") -> None:
            if note.startswith("epoch 2"):
                raise KeyboardInterrupt

    metrics = train(*TUNED)
    whole = WEIGHTS.read_bytes()
    assert metrics["best_epoch"] <= metrics["epochs"] <= 3
    printed = capsys.readouterr().out
    assert "  probe        " in printed
    assert f"(epoch {metrics['best_epoch']}, the best of {metrics['epochs']}" in printed
    WEIGHTS.parent.rename("before")
    with monkeypatch.context() as patch:
        patch.setattr(stages.train_teacher, "Lines", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(*TUNED)
        assert Interrupted.begun == "probe: embeddings, probe: classifier, teacher, "
        Interrupted.begun = ""
        with pytest.raises(KeyboardInterrupt):
            train(*TUNED)
        assert Interrupted.begun == "teacher, "
    again = train(*TUNED)
    assert WEIGHTS.read_bytes() == whole
    assert {**again["probe"], **dict.fromkeys(("seconds", "images_per_second"))} == {
        **metrics["probe"],
        **dict.fromkeys(("seconds", "images_per_second")),
    }


def test_fine_tuning_alone_begins_with_the_weights(begun: Path):
    metrics = train(START, "teacher_training.probe=0", "teacher_training.learning_rate=1e-9")
    assert "probe" not in metrics
    old, new = load_file("start.safetensors"), load_file(WEIGHTS)
    assert (old["conv1.weight"] - new["conv1.weight"]).abs().max() < 1e-6


def test_a_teacher_that_has_learnt_nothing_is_told(begun: Path, capsys: pytest.CaptureFixture[str]):
    train("teacher_training.epochs=1", "teacher_training.learning_rate=1e-9")
    printed = capsys.readouterr().out
    assert printed.count("warning: ") == 1
    assert "on the holdout is no better than naming the most frequent class (25.00%)" in printed
    assert "probe" not in printed


@pytest.mark.parametrize(("higher_is_better", "warned"), [(True, False), (False, True)])
def test_whether_fine_tuning_did_harm_is_told_by_the_direction_of_the_score(higher_is_better: bool, warned: bool):
    score = Score("agreement", "agreement", higher_is_better)
    scorer = SimpleNamespace(score=score, labels=None)
    probed = ProbeResult(loss=0.1, holdout=0.5, decay=0.1, views=1, seconds=1.0, images_per_second=1.0)
    run = SimpleNamespace(best=None, seconds=1.0)
    metrics = {"epochs": 2, "holdout": {"agreement": 0.625}}
    lines = list(summary_lines(WEIGHTS, run, probed, metrics, scorer))  # type: ignore[arg-type]
    assert any("62.50% on the holdout" in line for line in lines)
    assert any("fine-tuning made the probe worse" in line for line in lines) == warned


def test_fine_tuning_that_did_harm_is_told(begun: Path, capsys: pytest.CaptureFixture[str]):
    train(START, "teacher_training.epochs=1", "teacher_training.learning_rate=50")
    assert "warning: fine-tuning made the probe worse" in capsys.readouterr().out


def test_without_a_holdout_nobody_knows(begun: Path, capsys: pytest.CaptureFixture[str]):
    metrics = train(*PROBE, "data.holdout=null")
    assert metrics["holdout"] is None
    assert "no holdout: nothing says how good it is" in capsys.readouterr().out


def test_patience_without_a_holdout_is_refused_by_the_check_and_by_the_run(begun: Path):
    wrong = ("teacher_training.patience=3", "train.patience=3", "data.holdout=null")
    with pytest.raises(ConfigError, match=r"teacher_training\.patience: stops by the score on the holdout"):
        train(*wrong)
    with pytest.raises(ConfigError) as error:
        check.run(source(*wrong), as_json=True)
    keys = [problem.key for problem in error.value.problems]
    assert "teacher_training.patience" in keys
    assert "train.patience" in keys


def test_weights_that_do_not_fit_are_refused_by_the_check_and_by_the_run(begun: Path):
    wrong = (*PROBE, "teacher.options={widths: [16, 16, 32]}")
    with pytest.raises(ModelError, match="the weights do not fit the model"):
        train(*wrong)
    with pytest.raises(ConfigError, match="the weights do not fit the model"):
        check.run(source(*wrong), as_json=True)


def test_class_weights_of_other_classes_are_refused_by_the_check(begun: Path):
    with pytest.raises(ConfigError, match=r"teacher_training\.class_weights: does not fit the classes"):
        check.run(source("teacher_training.class_weights=[1, 2]"), as_json=True)


def test_a_probe_beyond_memory_is_refused_by_the_check_and_by_the_run(begun: Path):
    wrong = (*PROBE, "teacher_training.resident_gigabytes=1e-6")
    with pytest.raises(ConfigError, match=r"teacher_training\.probe: is too many views for memory"):
        train(*wrong)
    with pytest.raises(ConfigError, match=r"teacher_training\.probe: is too many views for memory"):
        check.run(source(*wrong), as_json=True)


def test_the_check_says_what_is_kept_of_the_weights(begun: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(*PROBE), as_json=False)
    expected = "          will start with weights for other classes: kept 54 of 56 tensors; new: classifier\n"
    assert expected in capsys.readouterr().out


def test_dvc_trains_a_teacher_again_if_the_weights_that_it_begins_with_change(begun: Path):
    text = Path("tiny.yaml").read_text().replace("teacher_training: {", "teacher_training: {start: start.safetensors, ")
    Path("tiny.yaml").write_text(text)
    file = dvc_file.stage_file(source().read(ExperimentConfig), source(), Path())
    assert "start.safetensors" in file["stages"]["train-teacher"]["deps"]


BLOCKS = re.findall("```yaml\n(.*?)```", (ROOT / "docs/training.md").read_text(), re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_documented_sections_are_valid(number: int):
    raw = parse_yaml(BLOCKS[number], "docs/training.md")
    _, problems = bind_each(raw, ExperimentConfig, SECTIONS)
    assert not [problem for problem in problems if problem.key.partition(".")[0] in raw]
