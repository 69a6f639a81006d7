"""Samples without labels: cached, and learnt from with objectives that need none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr
from experiment import CLASSES, LIMIT, images, source, student

from pipeline.commands import check, inspect
from pipeline.errors import ConfigError, DataError, ModelError
from pipeline.experiment.data import Data
from pipeline.experiment.networks import trained_network
from pipeline.measuring.prediction import predict_signals
from pipeline.objectives import Needs, ObjectiveSet
from pipeline.objectives.methods.kd import KD
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, evaluate, prepare_data, train_student

FREE = 40
UNLABELED = (
    "data={path: data.h5, split: unlabeled}",
    "store={path: free.zarr, rows_per_block: 16}",
    "objectives={kd: [{name: kd}], lfcc: [{name: kd}, {name: lfcc, width: 16, scales: [1, 2]}]}",
)


@pytest.fixture
def free(here: Path) -> Path:
    """`here` with a split that has no labels."""
    with h5py.File("data.h5", "r+") as file:
        group = file.create_group("unlabeled")
        group["images"], _ = images(FREE, 7)
        group["ids"] = [f"free/{i}" for i in range(FREE)]
    return here


def test_an_unlabeled_split_is_cached_distilled_from_and_evaluated(free: Path):
    check.run(source(*UNLABELED), as_json=False)
    cache_teacher.run(source(*UNLABELED), replace=False, wait=False)
    cache = TeacherCache.open(Path("free.zarr"))
    assert cache.count == FREE
    assert cache.labels.tolist() == [-1] * FREE
    for objectives in ("kd", "lfcc"):
        folder = student("small", objectives, *UNLABELED)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["holdout"] is None  # nothing is held out, so nothing is scored along the way
        rows = (folder / "history.csv").read_text().splitlines()
        assert "holdout_top1" not in rows[0]
    evaluate.run(source(*UNLABELED))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert [each.objectives for each in found.students] == ["kd", "lfcc"]
    assert found.teacher is not None
    assert all(each.metrics.agreement is not None for each in found.students)


def test_hard_labels_of_an_unlabeled_split_are_refused_by_name_before_training(free: Path):
    overrides = (*UNLABELED[:2], "objectives={kd: [{name: kd}, {name: hard-label, weight: 0.1}]}")
    message = r"objectives\.kd\.1: hard-label needs labels, and split 'unlabeled' has none"
    with pytest.raises(ConfigError, match=message) as error:
        check.run(source(*overrides), as_json=False)
    assert "do: leave it out, and learn from the teacher alone, with kd or lfcc" in str(error.value)
    cache_teacher.run(source(*overrides), part="training", replace=False, wait=False)
    with pytest.raises(ConfigError, match=message):
        student("small", "kd", *overrides)


def test_students_are_scored_by_agreement_on_a_holdout_without_labels(free: Path, capsys: pytest.CaptureFixture[str]):
    held = (*UNLABELED, "data={path: data.h5, split: unlabeled, holdout: {count: 10, seed: 2}}", "train.patience=1")
    check.run(source(*held), as_json=False)
    said = capsys.readouterr().out
    assert f"{FREE - 10} samples to learn from, 10 held out" in said
    assert "held out: 10 of them, drawn with seed 2" in said
    cache_teacher.run(source(*held), replace=False, wait=False)
    folder = student("small", "kd", *held)
    metrics = json.loads((folder / "metrics.json").read_text())["holdout"]
    assert metrics["top1"] is None
    assert metrics["count"] == 10
    network = trained_network(folder, "small", CLASSES)
    experiment = evaluate.Experiment(source(*held).read(evaluate.Inputs))
    samples, views, _ = experiment.evaluation_cache("holdout")
    own = predict_signals(network, samples, views).logits
    teacher = torch.from_numpy(np.asarray(zarr.open_group("free.holdout.zarr", mode="r")["logits"])[0])
    agreement = float((own.argmax(1) == teacher.argmax(1)).double().mean())
    assert metrics["agreement"] == pytest.approx(agreement)
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()]
    column = [float(row[rows[0].index("holdout_agreement")]) for row in rows[1:]]
    assert max(column) == pytest.approx(agreement, abs=1e-5)
    assert "unlabeled,free/" in (folder / "holdout.csv").read_text()


def test_a_student_without_a_teacher_for_the_holdout_is_not_scored(free: Path):
    held = (*UNLABELED, "data={path: data.h5, split: unlabeled, holdout: {count: 10}}")
    cache_teacher.run(source(*held), part="training", replace=False, wait=False)
    metrics = json.loads((student("small", "kd", *held) / "metrics.json").read_text())
    assert metrics["holdout"] is None
    with pytest.raises(ConfigError, match="patience"):
        student("small", "lfcc", *held, "train.patience=1")


def test_an_unlabeled_split_cannot_be_evaluated(free: Path):
    cache_teacher.run(source(*UNLABELED), part="training", replace=False, wait=False)
    student("small", "kd", *UNLABELED)
    with pytest.raises(DataError, match="the split has images without labels"):
        evaluate.run(source(*UNLABELED, "evaluate.split=unlabeled"))


def test_unlabeled_images_alone_are_distilled_from_where_the_number_of_classes_is_said(here: Path):
    with h5py.File("data.h5", "w") as file:
        file["unlabeled/images"], _ = images(FREE, 7)
        file["unlabeled/ids"] = [f"free/{i}" for i in range(FREE)]
    alone = (*UNLABELED, "evaluate.split=unlabeled")
    with pytest.raises(DataError, match="has neither labels nor class names") as error:
        cache_teacher.run(source(*alone), replace=False, wait=False)
    assert "data.classes: N" in str(error.value)
    alone = (*alone, f"data.classes={CLASSES}")
    check.run(source(*alone), as_json=False)
    cache_teacher.run(source(*alone), replace=False, wait=False)
    assert TeacherCache.open(Path("free.zarr")).shapes.logits == CLASSES
    metrics = json.loads((student("small", "kd", *alone) / "metrics.json").read_text())
    assert metrics["final_loss"] > 0
    inspect.run(source(*alone), Path("free.zarr"), sheet=inspect.Sheet(1, 2, Path("sheet.png")), as_json=False)
    assert Path("sheet.png").exists()
    wrong = "data={path: data.h5, split: unlabeled, classes: 5}"
    with pytest.raises(ModelError):
        cache_teacher.run(source(*alone[1:3], wrong, "evaluate.split=unlabeled"), replace=True, wait=False)


@pytest.fixture
def mixed(here: Path) -> Path:
    """`here` with two of three training samples unlabeled."""
    with h5py.File("raw.h5", "r+") as file:
        labels = file["train/labels"][:]
        labels[np.arange(len(labels)) % 3 != 0] = -1
        file["train/labels"][:] = labels
    Path("data.h5").unlink()
    return here


def test_samples_without_labels_among_others(
    mixed: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    settings = ("data.holdout.count=8", "store={path: mixed.zarr}")
    prepare_data.run(source(), replace=False)
    assert " 48  8x8x1\n" in capsys.readouterr().out
    cache_teacher.run(source(*settings), replace=False, wait=False)
    assert np.bincount(TeacherCache.open(Path("mixed.zarr")).labels + 1).tolist() == [40, 3, 3, 3, 3]

    seen: list[tuple[Any, float]] = []
    forward = ObjectiveSet.forward

    def remembered(self: ObjectiveSet, own: Any, teacher: Any, batch: Any, *rest: Any) -> Any:
        value = forward(self, own, teacher, batch, *rest)
        seen.append(((own.logits.detach(), batch.labels), float(value.terms["hard-label/cross-entropy"])))
        return value

    monkeypatch.setattr(ObjectiveSet, "forward", remembered)
    folder = student("small", "kd", *settings)
    assert json.loads((folder / "metrics.json").read_text())["holdout"]["count"] == 8
    assert len(seen) == 2 * 4
    for (logits, labels), value in seen:
        labeled = labels >= 0
        assert 0 < int(labeled.sum()) < len(labels)
        expected = torch.nn.functional.cross_entropy(logits[labeled], labels[labeled])
        assert value == pytest.approx(float(expected), rel=1e-5)


def test_labels_of_every_sample_are_asked_for_where_an_objective_needs_them(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
):
    prepare_data.run(source(), replace=False)
    monkeypatch.setattr(KD, "needs", Needs(teacher=frozenset({"logits"}), labels=True))
    with pytest.raises(ConfigError, match=r"objectives\.kd\.1: needs a label for every sample, and some have none"):
        check.run(source("data.holdout.count=8"), as_json=False)


def test_the_holdout_has_labels_only(mixed: Path):
    prepare_data.run(source(), replace=False)
    inputs = source("data.holdout.count=8").read(train_student.Inputs)
    data = Data.open(inputs.data, inputs.views)
    assert data.holdout is not None
    assert data.holdout.labels is not None
    assert sorted(data.holdout.labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert data.training.count == LIMIT - 8
