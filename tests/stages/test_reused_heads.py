"""A student that ends in its teacher's classifier, from training to the evaluation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from experiment import TEST, content, source, student
from torch.nn import functional as F

import stages.train_student
from pipeline.data import PackedDataset
from pipeline.errors import ConfigError, ModelError
from pipeline.experiment import evaluator
from pipeline.measuring.cost import Rate
from pipeline.measuring.metrics import measure
from pipeline.models import build_network
from pipeline.progress import Silent
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import evaluate

SETS = (
    "objectives={simkd: [{name: simkd}], lift: [lift], hard: [{name: hard-label}]}",
    "students={small: {model: cifar_resnet8, input_size: 8, options: {widths: [16, 16, 16]}}}",
    "train={epochs: 6, batch_size: 16, precision: float32, device: cpu, learning_rate: 0.05}",
)
FOLDER = Path("artifacts/tiny/students/small/simkd/seed-0")


@pytest.fixture(autouse=True)
def _rates_are_not_what_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter(range(1, 100))
    monkeypatch.setattr(evaluator, "images_per_second", lambda *_, **__: Rate(float(next(rates)), 0.0, 0.0, 3))


def logits() -> tuple[torch.Tensor, torch.Tensor]:
    """What the two files in the folder say of the test split: the paper's inference, with nothing of ours but maps.

    And what the network's own classifier says, which nothing has trained.
    """
    split = PackedDataset.open(Path("data.h5")).split("test")
    images = split.read(np.arange(TEST))
    assert isinstance(images, torch.Tensor)
    weights, options = FOLDER / "student.safetensors", {"widths": [16, 16, 16]}
    network = build_network("cifar_resnet8", 4, weights=weights, input_size=8, options=options).eval()
    state = safetensors.torch.load_file(FOLDER / "head.safetensors")
    with torch.inference_mode():
        said = network(images)
        x = said.features["block3"]
        for number, padding in enumerate((0, 1, 0)):
            layer = f"projector.{number}"
            x = F.conv2d(x, state[f"{layer}.linear.weight"], padding=padding)
            statistics = (state[f"{layer}.norm.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
            x = F.batch_norm(x, *statistics).relu()
        return x.mean((2, 3)) @ state["classifier.weight"].T + state["classifier.bias"], said.logits


def test_what_is_scored_and_exported_is_what_was_trained(here: Path):
    student("small", "simkd", *SETS)
    student("small", "hard", *SETS)
    assert content(FOLDER).keys() == content(FOLDER.parents[1] / "hard/seed-0").keys() | {"head.safetensors"}
    answers = TeacherCache.open(Path("artifacts/caches/tiny.evaluation.zarr")).read(0, np.arange(TEST)).logits
    labels = torch.from_numpy(PackedDataset.open(Path("data.h5")).split("test").labels)
    teacher = TeacherCache.open(Path("artifacts/caches/tiny.zarr")).head
    state = safetensors.torch.load_file(FOLDER / "head.safetensors")
    assert teacher is not None
    assert torch.equal(state["classifier.weight"], teacher.weight)
    assert torch.equal(state["classifier.bias"], teacher.bias)

    shutil.rmtree("artifacts/caches/tiny.zarr")  # the student's folder is all that is needed
    evaluate.run(source(*SETS))
    reused, plain = Evaluation.read(Path("artifacts/tiny/evaluation.json")).students
    expected, own = logits()
    assert reused.metrics.top1 == (expected.argmax(1) == labels).double().mean().item()
    assert reused.metrics.nll == pytest.approx(F.cross_entropy(expected, labels).item(), rel=1e-4)
    assert reused.metrics.agreement == (expected.argmax(1) == answers.argmax(1)).double().mean().item()
    assert reused.metrics.kl is not None
    divergence = measure(own, labels, answers).kl
    assert divergence is not None
    assert reused.metrics.kl < divergence / 3

    projection, classifier, idle = 16 * 32 + 32 * 32 * 9 + 32 * 64, 64 * 4, 16 * 4
    norms, biases = 2 * (32 + 32 + 64), (4, 4)
    assert reused.parameters == plain.parameters - idle - biases[0] + projection + norms + classifier + biases[1]
    assert reused.macs == plain.macs - idle + 2 * 2 * projection + classifier
    assert reused.images_per_second != plain.images_per_second  # each measured on its own
    metrics = json.loads((FOLDER / "metrics.json").read_text())
    assert metrics["parameters"] == reused.parameters
    assert metrics["holdout"]["kl"] < divergence / 3


@pytest.mark.parametrize("objectives", ["simkd", "lift"])
def test_a_run_goes_on_where_it_was_interrupted(objectives: str, here: Path, monkeypatch: pytest.MonkeyPatch):
    class Interrupted(Silent):
        def advance(self, amount: int, note: str = "") -> None:
            if note.startswith("epoch 3"):
                raise KeyboardInterrupt

    averaged = (*SETS, "train.epochs=4", "train.ema=0.8")
    whole = content(student("small", objectives, *averaged, output=Path("whole")))
    with monkeypatch.context() as patch:
        patch.setattr(stages.train_student, "Lines", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            student("small", objectives, *averaged)
    resumed = content(student("small", objectives, *averaged))
    for name in ("student.safetensors", "head.safetensors"):
        assert resumed[name] == whole[name]


def test_a_lifted_student_is_scored_by_the_classifier_that_it_learnt(here: Path):
    folder = student("small", "lift", *SETS)
    evaluate.run(source(*SETS))
    (found,) = Evaluation.read(Path("artifacts/tiny/evaluation.json")).students
    split, options = PackedDataset.open(Path("data.h5")).split("test"), {"widths": [16, 16, 16]}
    weights, state = folder / "student.safetensors", safetensors.torch.load_file(folder / "head.safetensors")
    network = build_network("cifar_resnet8", 4, weights=weights, input_size=8, options=options).eval()
    with torch.inference_mode():
        x = network(split.read(np.arange(TEST))).features["block3"].permute(0, 2, 3, 1)
        x = F.layer_norm(
            x @ state["projector.linear.weight"].T,
            (64,),
            *(state[f"projector.norm.{name}"] for name in ("weight", "bias")),
        )
        logits = x.mean((1, 2)) @ state["classifier.weight"].T + state["classifier.bias"]
    labels = torch.from_numpy(split.labels)
    assert found.metrics.nll == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    assert found.metrics.nll < 1.3  # less than log 4, what a classifier has that nothing has trained
    teacher = TeacherCache.open(Path("artifacts/caches/tiny.zarr")).head
    assert teacher is not None
    assert not torch.equal(state["classifier.weight"], teacher.weight)


def test_a_damaged_head_is_no_plain_student(here: Path):
    student("small", "simkd", *SETS, "train.epochs=1")
    (FOLDER / "head.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="damaged"):
        evaluate.run(source(*SETS))


def test_two_heads_in_one_set_are_refused_by_name(here: Path):
    twice = "objectives={two: [{name: simkd}, {name: kd}, {name: simkd, label: other}]}"
    with pytest.raises(ConfigError, match=r"objectives\.two: simkd and other would each stand in") as error:
        student("small", "two", twice)
    assert "do: leave all but one of them out" in str(error.value)
