"""Sets that read nothing of the teacher may learn from new views in every epoch, where no teacher has ever been."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from experiment import COUNT, begin, content, source, student

import stages.train_student
from pipeline.commands import check, dvc_file
from pipeline.data import PackedDataset, select
from pipeline.errors import CacheMismatch, CacheNotFound, ConfigError
from pipeline.planning.binding import bind_experiment
from pipeline.training import Steps
from pipeline.views import build_views
from pipeline.yaml_text import parse_yaml
from stages import prepare_data

FRESH = "objectives.hard={views: fresh, objectives: [{name: hard-label}]}"


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with the packed images alone."""
    monkeypatch.chdir(begin(tmp_path / "bare"))
    prepare_data.run(source(), replace=False)
    return tmp_path / "bare"


def test_neither_cache_nor_teacher_is_needed(bare: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(CacheNotFound):
        student("small", "hard")
    folder = student("small", "hard", FRESH)
    assert "views are drawn anew in every epoch" in capsys.readouterr().out
    assert not Path("artifacts/caches").exists()
    assert not Path("artifacts/teacher").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["holdout"]["top1"] is not None
    assert metrics["holdout"]["agreement"] is None
    used = parse_yaml((folder / "config.yaml").read_text(), "config.yaml")
    assert used["objectives"]["hard"]["views"] == "fresh"
    student("small", "hard", FRESH)
    assert "already there" in capsys.readouterr().out


def test_it_is_the_same_student_where_a_teacher_and_its_caches_are(here: Path, bare: Path, monkeypatch: Any):
    folders = []
    for place in (here, bare):
        monkeypatch.chdir(place)
        folders.append(place / student("small", "hard", FRESH))
    ours, theirs = map(content, folders)
    assert ours["student.safetensors"] == theirs["student.safetensors"]
    assert ours["config.yaml"] == theirs["config.yaml"]
    measured = [json.loads(each["metrics.json"])["holdout"] for each in (ours, theirs)]
    assert measured[0] == measured[1]


def test_every_epoch_has_views_of_its_own(bare: Path, monkeypatch: pytest.MonkeyPatch):
    found: list[Steps] = []

    class Enough(Exception):  # noqa: N818 - not an error: ends the run
        pass

    def remember(network: Any, chosen: Any, steps: Steps, **options: Any) -> None:
        found.append(steps)
        raise Enough

    monkeypatch.setattr(stages.train_student, "train_by_steps", remember)
    with pytest.raises(Enough):
        student("small", "hard", FRESH, "train.epochs=5", "views.count=1", "views.seed=3")
    (steps,) = found
    inputs = source("views.seed=3").read(stages.train_student.Inputs)
    samples, _ = select(PackedDataset.of(inputs.data), inputs.data)
    views = build_views(inputs.views, (8, 8))
    images = samples.read(np.arange(COUNT))
    expected = [views.apply(images, views.parameters(epoch, samples.positions)) for epoch in range(5)]
    for epoch in range(5):
        first = epoch * steps.steps_per_epoch
        batches = [steps[first + i] for i in range(steps.steps_per_epoch)]
        rows = torch.cat([batch.sample for batch in batches])
        assert torch.equal(rows.sort().values, torch.arange(COUNT))
        assert torch.equal(torch.cat([batch.images for batch in batches]), expected[epoch][rows])
        assert all(batch.teacher_outputs is None for batch in batches)
    assert not torch.equal(expected[0], expected[4])


@pytest.mark.parametrize(
    ("reader", "read"),
    [
        ("{name: kd}", "and kd reads its logits"),
        ("{name: lfcc, scales: [1, 2], label: maps}", "and maps reads its features/"),
        ("{name: fitnet, blocks: [block9]}", "and an objective cannot be built"),  # there is no such block
    ],
)
def test_a_set_that_reads_the_teacher_is_refused_by_name(here: Path, reader: str, read: str):
    wrong = f"objectives.hard={{views: fresh, objectives: [{{name: hard-label}}, {reader}]}}"
    for run in (lambda: check.run(source(wrong), as_json=False), lambda: student("small", "hard", wrong)):
        with pytest.raises(ConfigError, match=r"objectives\.hard\.views: the teacher has not seen views") as error:
            run()
        assert read in str(error.value)
        assert "do: leave `views` out, or all but `hard-label` and every `weighting`" in str(error.value)
        assert "signals:" not in str(error.value)  # no cache would help


def test_what_is_wrong_in_a_set_is_told_at_its_place(here: Path):
    for entries, key in (
        ("{views: fresh, objectives: [{name: hard}]}", "objectives.hard.objectives.0.name: "),
        ("{views: fresh, objectives: [{name: hard-label, smoothing: 2}]}", "objectives.hard.objectives.0.smoothing: "),
        ("{views: frehs, objectives: [{name: hard-label}]}", "objectives.hard.views: "),
        ("{view: fresh, objectives: [{name: hard-label}]}", "objectives.hard.view: unknown key"),
        ("{views: fresh, objectives: []}", "objectives.hard.objectives: is empty"),
        ("{views: fresh}", "objectives.hard.objectives: Field required"),
        ("[{name: hard}]", "objectives.hard.0.name: "),
        ("[]", "objectives.hard: is empty"),
    ):
        with pytest.raises(ConfigError) as error:
            check.run(source(f"objectives.hard={entries}"), as_json=False)
        assert f"- {key}" in str(error.value)


def test_a_mapping_with_cached_views_is_the_list(here: Path, capsys: pytest.CaptureFixture[str]):
    student("small", "hard")
    before = content(Path("artifacts/tiny/students/small/hard/seed-0"))
    student("small", "hard", "objectives.hard={objectives: [{name: hard-label}]}")
    student("small", "hard", "objectives.hard={views: cached, objectives: [{name: hard-label}]}")
    assert capsys.readouterr().out.count("already there") == 2
    with pytest.raises(CacheMismatch, match="another artifact is published at the target"):
        student("small", "hard", FRESH)
    assert content(Path("artifacts/tiny/students/small/hard/seed-0")) == before


def test_what_the_student_sees_is_in_its_identity_and_nothing_else(bare: Path, capsys: pytest.CaptureFixture[str]):
    student("small", "hard", FRESH)
    capsys.readouterr()
    for other in ("views.count=9", "views.first=3", "signals.features=null", "teacher.model=resnet18"):
        student("small", "hard", FRESH, other)
        assert "already there" in capsys.readouterr().out
    for other in (
        "views.seed=1",
        "views.operations=[{name: horizontal-flip}]",
        "data.limit=50",
        "teacher.mean=[0, 0, 0]",
    ):
        with pytest.raises(CacheMismatch):
            student("small", "hard", FRESH, other)
    with h5py.File("data.h5", "r+") as file:
        file["train/images"][:] ^= 1
    with pytest.raises(CacheMismatch):
        student("small", "hard", FRESH)


def test_check_says_that_the_set_needs_nothing(here: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(FRESH, "objectives.plain=[{name: hard-label}]"), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert "needs     nothing (fresh views): hard" in lines
    assert "          nothing: plain" in lines
    check.run(source(FRESH), as_json=True)
    needs = json.loads(capsys.readouterr().out)["requirements"]["needs"]
    assert {entry["objectives"]: entry["views"] for entry in needs} == {
        "hard": "fresh",
        "kd": "cached",
        "lfcc": "cached",
    }


def test_views_in_a_batch_are_not_counted_where_all_are_fresh(here: Path):
    pairs = ("objectives={hard: {views: fresh, objectives: [{name: hard-label}]}}", "train.views_per_step=3")
    assert bind_experiment(source(*pairs)).students
    folder = student("small", "hard", *pairs, "train.epochs=1")
    assert (folder / "student.safetensors").exists()
    with pytest.raises(ConfigError, match=r"train\.views_per_step"):
        check.run(source(FRESH, pairs[1]), as_json=False)


def test_its_stage_depends_on_the_data_alone(bare: Path):
    text = Path("tiny.yaml").read_text()
    wanted = "hard: {views: fresh, objectives: [{name: hard-label}]}"
    Path("tiny.yaml").write_text(text.replace("hard: [{name: hard-label}]", wanted))
    dvc_file.run(source(), Path("dvc.yaml"))
    stages = parse_yaml(Path("dvc.yaml").read_text(), "dvc.yaml")["stages"]
    assert stages["train-students-hard"]["deps"] == ["data.h5"]
    (params,) = stages["train-students-hard"]["params"]
    assert {"views.operations", "train", "objectives.hard"} <= set(params["tiny.yaml"])
    assert "views" not in params["tiny.yaml"]  # how many are cached is nothing to it
    assert len(stages["train-students-kd"]["deps"]) == 3
