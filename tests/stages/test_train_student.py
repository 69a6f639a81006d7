from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import pytest
import safetensors.torch
import timm
import torch
from experiment import COUNT, HOLDOUT, RUNS, content, interrupted, source, student

import pipeline.experiment.students
import stages.train_student
from pipeline.commands import check
from pipeline.data import PackedDataset, select
from pipeline.errors import CacheError, CacheMismatch, CacheNotFound, CacheUnfinished, ConfigError
from pipeline.models import build_network
from pipeline.publishing import Scratch
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher

OPTIONS: dict[str, dict[str, Any]] = {
    "small": {"widths": [16, 16, 16]},
    "vit": {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 2, "num_heads": 3, "global_pool": "avg"},
}
MODELS = {"small": ("cifar_resnet8", 8), "vit": ("vit_tiny_patch16_224", 16)}


def times(folder: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(("name", "objectives"), RUNS)
def test_a_run_leaves_weights_configuration_metrics_and_history(travelled: Path, name: str, objectives: str):
    folder = travelled / f"artifacts/tiny/students/{name}/{objectives}/seed-0"
    files = {".fingerprint", "config.yaml", "history.csv", "holdout.csv", "metrics.json", "student.safetensors"}
    assert {path.name for path in folder.iterdir()} == files | {"model.json", "model-card.md"}

    metrics = json.loads((folder / "metrics.json").read_text())
    model, _ = MODELS[name]
    assert {key: metrics[key] for key in ("student", "objectives", "seed", "model", "epochs")} == {
        "student": name,
        "objectives": objectives,
        "seed": 0,
        "model": model,
        "epochs": 2,
    }
    assert metrics["holdout"]["count"] == HOLDOUT
    assert metrics["holdout"]["agreement"] is not None  # with the teacher's cached answers
    assert (metrics["device"], metrics["precision"]) == ("cpu", "float32")
    assert "deterministic" not in metrics
    assert metrics["images_per_second"] > 0
    lines = (folder / "history.csv").read_text().splitlines()
    terms = {"hard": 1, "kd": 2, "lfcc": 2}[objectives]
    assert lines[0].split(",")[:3] == ["epoch", "learning_rate", "loss"]
    assert len(lines[0].split(",")) == 6 + terms
    assert len(lines) == 3
    assert float(lines[-1].split(",")[2]) == pytest.approx(metrics["final_loss"], rel=1e-5)

    rows = (folder / "holdout.csv").read_text().splitlines()
    assert rows[0] == "split,id,label"
    assert len(rows) == 1 + HOLDOUT

    used = parse_yaml((folder / "config.yaml").read_text(), "config.yaml")
    assert used["train"]["optimizer"] == ("adamw" if name == "vit" else "sgd")  # the student's own keys are in
    assert list(used["students"]) == [name]
    assert list(used["objectives"]) == [objectives]


@pytest.mark.parametrize("name", ["small", "vit"])
def test_students_load_into_timm(travelled: Path, name: str):
    path = travelled / f"artifacts/tiny/students/{name}/kd/seed-0/student.safetensors"
    model, size = MODELS[name]
    state = safetensors.torch.load_file(path)
    plain = timm.create_model(model, num_classes=4, **OPTIONS[name])
    plain.load_state_dict(state)  # strict
    by_path = timm.create_model(model, num_classes=4, checkpoint_path=str(path), **OPTIONS[name])
    ours = build_network(model, 4, weights=path, input_size=size, options=OPTIONS[name]).eval()
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    normalised = (images / 255 - 0.5) / 0.25
    with torch.inference_mode():
        expected = ours(images).logits
        for other in (plain, by_path):
            torch.testing.assert_close(other.eval()(normalised), expected, rtol=1e-4, atol=1e-4)
    metrics = json.loads(path.with_name("metrics.json").read_text())
    assert metrics["parameters"] == sum(parameter.numel() for parameter in plain.parameters())


def test_training_moved_the_weights_and_objective_sets_differ(travelled: Path):
    students = travelled / "artifacts/tiny/students/small"
    states = [
        safetensors.torch.load_file(students / name / "seed-0/student.safetensors") for name in ("hard", "kd", "lfcc")
    ]
    start = build_network("cifar_resnet8", 4, input_size=8, options=OPTIONS["small"], seed=0).model.state_dict()
    for state in states:
        assert not torch.equal(state["fc.weight"], start["fc.weight"])
    assert not torch.equal(states[0]["fc.weight"], states[1]["fc.weight"])


def test_the_second_time_it_is_there_already(there: Path, capsys: pytest.CaptureFixture[str]):
    folder = Path("artifacts/tiny/students/small/kd/seed-0")
    before, listed = times(folder), sorted(folder.parent.iterdir())
    student("small", "kd")
    assert capsys.readouterr().out == f"{folder}: already there\n"
    assert times(folder) == before
    assert sorted(folder.parent.iterdir()) == listed


def test_what_does_not_change_the_student_does_not_count(there: Path, capsys: pytest.CaptureFixture[str]):
    for override in ("train.workers=3", "train.checkpoint_epochs=2", "students.vit.model=unknown", "runs.seeds=[0,1]"):
        student("small", "kd", override)
        assert "already there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("train.epochs=1", "train.epochs: expected 1, got 2"),
        ("train.ema=0.9", "train.ema: expected 0.9, got null"),
        ("students.small.train={view_offset: 1}", "train.view_offset: expected 1, got 0"),
    ],
)
def test_other_settings_are_refused_without_replace(there: Path, override: str, named: str):
    folder = Path("artifacts/tiny/students/small/kd/seed-0")
    before = content(folder)
    with pytest.raises(CacheMismatch, match="another artifact is published at the target") as error:
        student("small", "kd", override)
    assert f"\n  - {named}" in str(error.value)
    assert "do: pass --replace (in Python, replace=True) to replace it, or name another path" in str(error.value)
    assert error.value.exit_code == 2
    assert content(folder) == before
    student("small", "kd", override, replace=True)
    assert content(folder)["student.safetensors"] != before["student.safetensors"]
    assert content(folder).keys() == before.keys()


def test_output_and_seed(there: Path, capsys: pytest.CaptureFixture[str]):
    folder = student("small", "hard", seed=7, output=Path("elsewhere/mine"))
    assert json.loads((folder / "metrics.json").read_text())["seed"] == 7
    assert "elsewhere/mine: trained in" in capsys.readouterr().out
    assert not Path("artifacts/tiny/students/small/hard/seed-7").exists()
    other = content(Path("artifacts/tiny/students/small/hard/seed-0"))
    assert content(folder)["student.safetensors"] != other["student.safetensors"]


def test_a_run_is_repeated_bit_for_bit(there: Path):
    folder = student("small", "lfcc", output=Path("again"))
    other = content(Path("artifacts/tiny/students/small/lfcc/seed-0"))
    assert content(folder)["student.safetensors"] == other["student.safetensors"]


def test_a_run_goes_on_where_it_was_interrupted(here: Path, travelled: Path):
    with pytest.MonkeyPatch.context() as patch:  # on a device that did not repeat itself, which is told of below
        patch.setattr("pipeline.training.loop.chance_operations", lambda device: nullcontext(["an operation"]))
        interrupted("small", "kd")
    (scratch,) = Path("artifacts/tiny/students/small/kd").glob(".*.partial")
    assert (scratch / "checkpoint.pt").exists()
    folder = student("small", "kd")
    assert not scratch.exists()
    whole = content(travelled / folder)
    assert content(folder)["student.safetensors"] == whole["student.safetensors"]
    assert content(folder).keys() == whole.keys()
    assert json.loads((folder / "metrics.json").read_text())["deterministic"] is False


def test_unknown_students_and_sets_are_refused_with_the_nearest_name(here: Path):
    with pytest.raises(ConfigError, match=r"students\.smal: unknown name 'smal'") as error:
        student("smal", "kd")
    assert "did you mean 'small'?" in str(error.value)
    with pytest.raises(ConfigError, match=r"objectives\.lfc: unknown name 'lfc'") as error:
        student("small", "lfc")
    assert "did you mean 'lfcc'?" in str(error.value)
    assert "expected: one of hard, kd, lfcc" in str(error.value)


def test_wrong_names_and_wrong_sections_are_told_of_together(here: Path):
    with pytest.raises(ConfigError) as error:
        student("smal", "kdd", "train.epochs=none", "views.count=0")
    assert {problem.key for problem in error.value.problems} == {
        "students.smal",
        "objectives.kdd",
        "train.epochs",
        "views.count",
    }


@pytest.mark.parametrize("override", ["train.optimizer=sdg", "train.schedule=cosinus"])
def test_what_timm_does_not_know_is_refused_before_views_are_rendered(
    here: Path, override: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pipeline.experiment.students, "check_views", None)  # a call would end in another error
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        student("small", "kd", override)


def test_features_that_the_cache_lacks_are_asked_for_before_training(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stages.train_student, "train_by_steps", None)
    lean = ("store.path=lean.zarr", "signals.features=null", "data.holdout=null")
    cache_teacher.run(source(*lean), replace=False, wait=False)
    with pytest.raises(ConfigError, match=r"objectives\.lfcc\.1: needs cached features of the teacher") as error:
        student("small", "lfcc", *lean)
    assert "do: add `features: {}` to `signals` and cache the teacher again" in str(error.value)


def test_several_views_of_each_sample_in_a_batch(here: Path, capsys: pytest.CaptureFixture[str]):
    pairs = ("objectives.mlld=[{name: hard-label, weight: 0.1}, {name: mlld, weight: 0.9}]", "train.epochs=1")
    with pytest.raises(ConfigError, match=r"objectives\.mlld\.1: needs 2 views of every sample in a batch"):
        student("small", "mlld", *pairs)
    with pytest.raises(ConfigError, match=r"train\.views_per_step: the views of a sample in a batch are different"):
        student("small", "mlld", *pairs, "train.views_per_step=3")
    folder = student("small", "mlld", *pairs, "train.views_per_step=2")
    assert "all 2 views match the teacher's pixels" in capsys.readouterr().out
    header = (folder / "history.csv").read_text().splitlines()[0]
    assert "mlld/instance,mlld/batch,mlld/class" in header


def test_a_student_with_coarse_maps_is_told_which_scales_it_goes_without(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    coarse = ("students.small={model: cifar_resnet8, input_size: 4, options: {widths: [16, 16, 16]}}", "train.epochs=1")
    said = "lfcc leaves out scale 2 at the student's block3, whose map has only 1 x 1 places"
    student("small", "lfcc", *coarse)
    assert f"note: {said}\n" in capsys.readouterr().out
    check.run(source(*coarse), as_json=False)
    assert f"note      small, lfcc: {said}\n" in capsys.readouterr().out
    check.run(source(*coarse), as_json=True)
    facts = json.loads(capsys.readouterr().out)
    assert facts["notes"] == [{"student": "small", "objectives": "lfcc", "note": said}]


def test_embeddings_that_the_cache_lacks_are_no_matter_to_those_that_do_not_ask(here: Path):
    lean = ("store.path=lean.zarr", "signals.features=null", "signals.embedding=null", "data.holdout=null")
    cache_teacher.run(source(*lean), replace=False, wait=False)
    folder = student("small", "kd", *lean)
    assert json.loads((folder / "metrics.json").read_text())["holdout"] is None


def test_the_cache_of_another_experiment(here: Path):
    shutil.copytree("artifacts/caches", "given")
    shutil.rmtree("artifacts/caches")
    with pytest.raises(CacheNotFound, match="there is no teacher cache"):
        student("small", "kd")
    folder = student("small", "kd", "caches=[{path: given/tiny.zarr}]")
    assert json.loads((folder / "metrics.json").read_text())["holdout"]["kl"] is not None


CHANGES = {
    "views.operations.0.padding: expected 2, got 1": "views.operations=[{name: pad-crop, padding: 2},"
    " {name: horizontal-flip}]",
    "views.operations: expected": "views.operations=[{name: pad-crop, padding: 1}]",
    "views.seed: expected 5, got 0": "views.seed=5",
    "views: expected views 0 to 2, got 0 to 1": "views.count=3",
    "data.pixels: expected": "data.holdout.seed=1",
    "data.samples: expected 52, got 48": "data.limit=64",
    "teacher.precision: expected": "teacher.precision=bfloat16",
    "teacher.micro_batch: expected 8, got 16": "teacher.micro_batch=8",
    "teacher.mean.0: expected 0.4, got 0.5": "teacher.mean=[0.4, 0.5, 0.5]",
    "signals.logits.encoding": "signals.logits.encoding=float16",
    "signals.grid: expected 4, got 2": "signals.features.grid=4",
    "signals.features.block1: expected": "signals.features.blocks=[block1]",
}


@pytest.mark.parametrize("line", CHANGES)
def test_a_cache_of_other_settings_is_refused_and_the_field_named(here: Path, line: str):
    with pytest.raises(CacheMismatch, match="the teacher cache is not what this run needs") as error:
        student("small", "kd", CHANGES[line])
    assert f"  - {line}" in str(error.value)
    assert "do: make a cache for these settings" in str(error.value)
    assert not Path("artifacts/tiny").exists()


def test_several_differences_are_all_named(here: Path):
    with pytest.raises(CacheMismatch) as error:
        student("small", "kd", "views.seed=5", "teacher.micro_batch=8", "data.limit=64")
    named = [line for line in str(error.value).splitlines() if line.startswith("  - ")]
    fields = {line.removeprefix("  - ").partition(":")[0] for line in named}
    assert fields == {"views.seed", "teacher.micro_batch", "data.samples", "data.ids", "data.pixels"}


def test_another_split_is_refused(here: Path):
    with pytest.raises(CacheMismatch, match=r"data\.ids"):
        student("small", "kd", "data.split=test", "data.limit=null", "data.holdout=null")


def test_another_teachers_weights_are_refused_where_they_are_and_noted_where_they_are_not(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    weights = Path("artifacts/teacher/teacher.safetensors")
    state = safetensors.torch.load_file(weights)
    state["fc.bias"][0] += 1e-6
    safetensors.torch.save_file(state, weights)
    with pytest.raises(CacheMismatch, match=r"teacher\.weights: expected"):
        student("small", "kd")
    capsys.readouterr()
    student("small", "kd", verify="sample")
    assert "not checked" in capsys.readouterr().out
    weights.unlink()
    student("small", "kd", output=Path("other"))
    assert "note: not checked against artifacts/caches/tiny.zarr: teacher.weights" in capsys.readouterr().out


def test_fewer_views_and_signals_than_the_cache_has_are_fine(here: Path):
    folder = student("small", "kd", "views.count=1", "signals.features=null", "signals.embedding=null")
    assert (folder / "student.safetensors").exists()


def changed_pixel() -> str:
    """Change a pixel of a sample that is learnt from; the sample's id."""
    inputs = source().read(stages.train_student.Inputs)
    training, _ = select(PackedDataset.open(inputs.data.path), inputs.data)
    assert training.count == COUNT
    position = int(training.positions[9])
    with h5py.File("data.h5", "r+") as file:
        file["train/images"][position, 4, 4, 0] ^= 1
    return training.split.ids[position]


def test_a_changed_pixel_is_seen_in_the_file_or_in_the_views(here: Path):
    name = changed_pixel()
    with pytest.raises(CacheMismatch, match=r"data\.pixels: expected"):
        student("small", "kd")
    with pytest.raises(CacheMismatch, match="1 of 48 rendered views are not the pixels") as error:
        student("small", "kd", verify="sample")
    assert f"samples {name}" in str(error.value)
    with pytest.raises(CacheMismatch, match=r"data\.pixels: expected"):
        student("small", "kd", verify="bytes")
    student("small", "kd", verify="none")


def test_corrected_labels_keep_the_cache_and_are_another_student(here: Path):
    settings = ("store.path=lean.zarr", "data.holdout=null")
    cache_teacher.run(source(*settings), replace=False, wait=False)
    folder = student("small", "hard", *settings)
    before = content(folder)
    with h5py.File("data.h5", "r+") as file:
        file["train/labels"][0] ^= 1
    with pytest.raises(CacheMismatch, match="another artifact is published at the target"):
        student("small", "hard", *settings)
    student("small", "hard", *settings, replace=True)
    assert content(folder)["student.safetensors"] != before["student.safetensors"]


def test_an_unfinished_cache_is_named(here: Path):
    Path("artifacts/caches/tiny.zarr").rename("artifacts/caches/.tiny.zarr.0123456789abcdef.partial")
    with pytest.raises(CacheUnfinished, match="was begun and not finished"):
        student("small", "kd")


def test_no_wait_names_who_holds_the_student(here: Path):
    found: list[str] = []
    original = Scratch.__init__

    def remember(self: Scratch, target: Path, fingerprint: str, **options: Any) -> None:
        found.append(fingerprint)
        original(self, target, fingerprint, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scratch, "__init__", remember)
        folder = student("small", "kd")
    shutil.rmtree(folder)
    with Scratch(folder, found[0], wait=False), pytest.raises(CacheError, match="another process is making") as error:
        student("small", "kd")
    assert error.value.exit_code == 1
