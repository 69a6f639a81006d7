from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from experiment import RUNS, TEST, source
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from pipeline.data import PackedDataset
from pipeline.errors import CacheMismatch, ConfigError, DataError, ModelError
from pipeline.experiment import details, evaluator
from pipeline.models import build_network
from pipeline.reporting.details import Details
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import evaluate, report

EVALUATION = Path("artifacts/tiny/evaluation.json")
STUDENTS = Path("artifacts/tiny/students")


@pytest.fixture(autouse=True)
def _rates_are_not_what_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.measuring.cost import Rate

    monkeypatch.setattr(evaluator, "images_per_second", lambda *arguments, **options: Rate(1000.0, 900.0, 1100.0, 3))


def test_every_student_and_the_teacher_are_measured(there: Path, capsys: pytest.CaptureFixture[str]):
    evaluate.run(source())
    assert capsys.readouterr().out == f"{EVALUATION}: 6 students on split 'test'\n"
    found = Evaluation.read(EVALUATION)
    assert [(each.student, each.objectives) for each in found.students] == RUNS
    assert found.experiment == "tiny"
    assert all(each.metrics.count == TEST for each in found.students)
    assert all(each.images_per_second == 1000.0 for each in found.students)
    assert found.teacher is not None
    assert found.teacher.metrics.agreement == 1.0
    assert found.teacher.metrics.kl == pytest.approx(0.0, abs=1e-12)
    assert found.teacher.parameters == sum(
        value.numel()
        for name, value in load_file("artifacts/teacher/teacher.safetensors").items()
        if "running" not in name and "num_batches" not in name
    )


def test_metrics_are_those_of_the_saved_weights_on_the_test_split(there: Path):
    evaluate.run(source())
    result = next(each for each in Evaluation.read(EVALUATION).students if each.objectives == "kd")
    split = PackedDataset.open(Path("data.h5")).split("test")
    assert split.labels is not None
    network = build_network(
        "cifar_resnet8",
        4,
        weights=STUDENTS / "small/kd/seed-0/student.safetensors",
        input_size=8,
        options={"widths": [16, 16, 16]},
    ).eval()
    with torch.inference_mode():
        images = split.read(np.arange(TEST))
        assert isinstance(images, torch.Tensor)
        logits = network(images).logits
    teacher = TeacherCache.open(Path("artifacts/caches/tiny.evaluation.zarr")).read(0, np.arange(TEST)).logits
    labels = torch.from_numpy(split.labels)
    assert result.metrics.top1 == pytest.approx((logits.argmax(1) == labels).double().mean().item())
    assert result.metrics.nll == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item(), rel=1e-5)
    assert result.metrics.agreement == pytest.approx((logits.argmax(1) == teacher.argmax(1)).double().mean().item())

    details = Details.read(Path("artifacts/tiny/details.json"))
    (found,) = details.of("small", "kd")
    assert details.evaluation == f"sha256:{hashlib.sha256(EVALUATION.read_bytes()).hexdigest()}"
    assert details.labels == tuple(np.bincount(split.labels, minlength=4).tolist())
    assert found.right == tuple(((logits.argmax(1) == labels) & (labels == k)).sum().item() for k in range(4))
    assert found.differing == (logits.argmax(1) != teacher.argmax(1)).sum().item()
    assert found.differences  # the student is of two epochs
    for one in found.differences:
        place = split.ids.index(details.pictures[one.picture].id)
        assert (one.student, one.teacher) == (logits[place].argmax().item(), teacher[place].argmax().item())
        assert one.probability == pytest.approx(logits[place].softmax(0).max().item(), abs=1e-4)
        assert details.pictures[one.picture].label == labels[place]
        assert (pixels_of(details.pictures[one.picture].image) == split.read(np.array([place]))[0, 0].numpy()).all()


def pixels_of(url: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def test_a_student_whose_outputs_are_no_numbers_is_named(there: Path):
    file = STUDENTS / "small/kd/seed-0/student.safetensors"
    weights = {name: value.clone() for name, value in load_file(file).items()}
    for name in weights:
        if name.startswith("fc."):
            weights[name] = torch.full_like(weights[name], float("nan"))
    save_file(weights, file)
    with pytest.raises(ModelError, match="this student cannot be measured") as error:
        evaluate.run(source())
    assert str(file.parent) in str(error.value)


def test_untrained_students_are_left_out_with_a_note(there: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree(STUDENTS / "vit")
    evaluate.run(source("runs.seeds=[0,1]"))
    printed = capsys.readouterr()
    notes = [line for line in printed.err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 9
    assert f"note: {STUDENTS}/vit/kd/seed-0 is not trained yet and left out" in notes
    assert f"note: {STUDENTS}/small/kd/seed-1 is not trained yet and left out" in notes
    assert [each.student for each in Evaluation.read(EVALUATION).students] == ["small"] * 3


def test_nothing_trained_is_an_error_that_says_what_to_do(here: Path):
    with pytest.raises(DataError, match="no student is trained yet") as error:
        evaluate.run(source())
    assert "do: run `pipeline train-student`" in str(error.value)
    assert not EVALUATION.exists()


def test_without_the_evaluation_cache_there_is_no_agreement(there: Path, capsys: pytest.CaptureFixture[str]):
    shutil.rmtree("artifacts/caches/tiny.evaluation.zarr")
    evaluate.run(source())
    assert "note: no evaluation cache" in capsys.readouterr().err
    found = Evaluation.read(EVALUATION)
    assert found.teacher is None
    assert all(each.metrics.agreement is None for each in found.students)


def test_without_the_teachers_weights_it_is_measured_by_its_answers(there: Path):
    Path("artifacts/teacher/teacher.safetensors").unlink()
    evaluate.run(source())
    teacher = Evaluation.read(EVALUATION).teacher
    assert teacher is not None
    assert teacher.parameters is None
    assert teacher.metrics.count == TEST


def test_another_split_does_not_fit_the_evaluation_cache(there: Path):
    with pytest.raises(CacheMismatch, match=r"data\.samples: expected 72, got 24"):
        evaluate.run(source("evaluate.split=train"))


def test_a_split_that_is_not_there(there: Path):
    with pytest.raises(ConfigError, match="unknown name 'tset'") as error:
        evaluate.run(source("evaluate.split=tset"))
    assert "did you mean 'test'?" in str(error.value)


def test_students_are_evaluated_as_they_were_trained_whatever_the_configuration_says_now(there: Path):
    evaluate.run(source())
    path = Path("artifacts/tiny/evaluation.json")
    before = [student["metrics"] for student in json.loads(path.read_text())["students"]]
    evaluate.run(
        source("students.small={model: cifar_resnet8, mean: [0.9, 0.9, 0.9], options: {widths: [16, 16, 32]}}")
    )
    assert [student["metrics"] for student in json.loads(path.read_text())["students"]] == before


def test_answers_of_another_teacher_or_to_other_views_are_refused(there: Path):
    with pytest.raises(CacheMismatch, match=r"views\.operations: expected"):
        evaluate.run(source("evaluate.operations=[{name: center-crop, size: 6}]"))
    with pytest.raises(CacheMismatch, match=r"teacher\.mean\.0: expected 0.9"):
        evaluate.run(source("teacher.mean=[0.9, 0.5, 0.5]"))


def test_a_cache_that_cannot_be_read_is_left_out_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Hours of measuring are not lost for a picture."""
    (tmp_path / "broken.zarr").mkdir()
    (tmp_path / "broken.zarr/zarr.json").write_text("{")
    paths = (tmp_path / "broken.zarr", tmp_path / "missing.zarr")
    config = SimpleNamespace(caches=[SimpleNamespace(path=path) for path in paths])
    measured: Any = SimpleNamespace(experiment=SimpleNamespace(config=config))
    assert details._caches(measured, ()) == []
    note = capsys.readouterr().err
    assert note.startswith(f"note: the report will not describe {paths[0]}: ")
    assert note.count("\n") == 1


def test_the_report_is_a_page_a_table_and_numbers(there: Path, capsys: pytest.CaptureFixture[str]):
    evaluate.run(source())
    capsys.readouterr()
    report.run(source(), write=True, table=True)
    printed = capsys.readouterr().out
    folder = Path("artifacts/tiny/report")
    names = {"report.html", "table.md", "summary.json", "accuracy_cost.csv", "overview.png"}
    assert {path.name for path in folder.iterdir()} == names
    page = (folder / "report.html").read_text()
    for text in ("cifar_resnet8", "lfcc", "learning_rate: 0.001", "<svg"):
        assert text in page
    assert "src=" not in page.replace('src="data:', "")  # nothing is fetched
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["students"]) == {"small", "vit"}
    assert set(summary["students"]["vit"]) == {"hard", "kd", "lfcc"}
    assert "small" in printed
    first = re.search(r'<p class="name">(\w+), trained by (\w+)</p>', page)
    assert first is not None
    assert f"to ship: {first[1]} by {first[2]}. Its top-1" in printed
    assert printed.endswith(f"report: {folder}/report.html\n")
    cache = TeacherCache.open(Path("artifacts/caches/tiny.zarr"))
    (shown,) = Details.read(Path("artifacts/tiny/details.json")).caches
    assert (shown.samples, shown.views, shown.missing) == (cache.count, 2, None)
    assert shown.signals[0][:2] == ("logits", "float32")
    logits = cache.read(1, np.array([0])).logits[0].softmax(0)
    name, share, _ = shown.shown[0].views[1].guesses[0]
    assert share == pytest.approx(logits.max().item(), abs=1e-4)
    for text in ("Which classes suffer?", "The cache behind it", "artifacts/caches/tiny.zarr", name, "view 1"):
        assert text in page
    before = (folder / "report.html").read_bytes()
    Path("artifacts/tiny/details.json").unlink()
    report.run(source(), write=True, table=False)
    assert "Run <code>pipeline evaluate</code> again" in (folder / "report.html").read_text()
    evaluate.run(source())
    report.run(source(), write=True, table=False)
    assert (folder / "report.html").read_bytes() == before


def test_the_report_may_only_be_shown_or_only_be_written(there: Path, capsys: pytest.CaptureFixture[str]):
    evaluate.run(source())
    capsys.readouterr()
    report.run(source(), write=False, table=True)
    assert not Path("artifacts/tiny/report").exists()
    shown = capsys.readouterr().out
    assert "vit" in shown
    assert "report.html" not in shown  # there is none
    report.run(source(), write=True, table=False)
    assert capsys.readouterr().out == "report: artifacts/tiny/report/report.html\n"


def test_nothing_evaluated_is_an_error_that_says_what_to_do(here: Path):
    with pytest.raises(DataError, match="nothing is evaluated yet") as error:
        report.run(source(), write=True, table=True)
    assert "do: run `pipeline evaluate`" in str(error.value)
