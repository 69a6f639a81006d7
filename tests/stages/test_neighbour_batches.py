"""Students whose batches have neighbours: found in the cache once, kept beside it, and the same after a stop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from experiment import content, interrupted, source, student

import pipeline.store.nearest
from pipeline.commands import check
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.runs import RunName
from pipeline.experiment.students import StudentRun, StudentSections
from pipeline.progress import Silent
from pipeline.store.nearest import find_nearest
from pipeline.store.reader import TeacherCache

MAIN, KEPT = Path("artifacts/caches/tiny.zarr"), Path("artifacts/caches/tiny.statistics/embedding.nearest")
NEAR = "objectives={near: [{name: coss, neighbours: 3, nearest: 5}], far: [{name: coss, neighbours: 0}]}"


def opened(objectives: str, *overrides: str) -> StudentRun:
    """What `train-student` opens."""
    inputs = source(NEAR, *overrides).read_only(StudentSections, {"students": "small", "objectives": objectives})
    return StudentRun(Experiment(inputs), RunName("small", objectives, 0))


def test_they_are_looked_for_when_a_student_is_trained_and_not_before(here: Path):
    assert opened("far").steps.neighbourhood is None
    run = opened("near")
    run.identity()
    assert len(run.steps) > 0
    assert not KEPT.exists()
    group = run.steps[0].sample[:4].tolist()
    assert KEPT.exists()
    cache = TeacherCache.open(MAIN)
    nearest = find_nearest(dict.fromkeys(cache.views, cache), 5, torch.device("cpu"), Silent())
    assert set(group[1:]) <= set(nearest[group[0]].tolist())


def test_few_groups_are_noted_by_check_and_before_training(here: Path, capsys: pytest.CaptureFixture[str]):
    note = "a batch of 16 samples is 4 groups of a sample and 3 neighbours: with fewer than 16 students get worse"
    assert note in opened("near", "train.batch_size=16").notes[0]
    assert opened("near", "train.batch_size=64").notes == opened("far").notes == []
    check.run(source(NEAR, "train.batch_size=16"), as_json=False)
    assert f"small, near: {note}" in " ".join(capsys.readouterr().out.split())


def test_a_run_is_another_with_them_and_goes_on_where_it_was_interrupted(here: Path, monkeypatch: pytest.MonkeyPatch):
    plain = student("small", "far", NEAR, output=Path("a"))
    whole = student("small", "near", NEAR, output=Path("b"))
    assert content(plain)["student.safetensors"] != content(whole)["student.safetensors"]
    interrupted("small", "near", NEAR, output=Path("c"))
    monkeypatch.setattr(pipeline.store.nearest, "find_nearest", None)  # they are read
    again = student("small", "near", NEAR, output=Path("c"))
    assert content(again)["student.safetensors"] == content(whole)["student.safetensors"]


@pytest.mark.parametrize("name", ["coss, neighbours: 3, nearest: 5", "ic-kd"])
def test_they_are_looked_for_on_the_device_of_the_training(here: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """On a machine with a GPU, too, if the training has none."""
    run = opened("near", f"objectives={{near: [{{name: {name}}}]}}", "train.device=cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    step = run.steps[0]
    assert step.teacher_outputs is not None
    run.objective_set.prepare(step.known(), 0.0)
    assert KEPT.parent.exists()


def test_what_the_teacher_says_of_the_nearest_is_learnt_from_and_the_labels_decide_which_these_are(here: Path):
    labels = "objectives={near: [{name: ic-kd, positives: 3, negatives: 2}]}"
    whole = student("small", "near", labels, output=Path("b"))
    interrupted("small", "near", labels, output=Path("c"))
    assert sorted(file.name for file in KEPT.parent.glob("embedding*")) == [
        "embedding.nearest-other",
        "embedding.nearest-same",
    ]
    again = student("small", "near", labels, output=Path("c"))
    assert content(again)["student.safetensors"] == content(whole)["student.safetensors"]


def test_workers_have_the_same_batches(here: Path):
    by_workers = student("small", "near", NEAR, "train.workers=1", "train.epochs=1", output=Path("a"))
    alone = student("small", "near", NEAR, "train.epochs=1", output=Path("b"))
    assert content(by_workers)["student.safetensors"] == content(alone)["student.safetensors"]
