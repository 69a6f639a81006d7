"""Teachers and students without a classifier: cached, learnt from, scored and read again, with and without classes."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from experiment import CLASSES, COUNT, HOLDOUT, TEST, TRAIN, images, moved_to, one_thread, source, student
from safetensors.torch import load_file
from sklearn.neighbors import KNeighborsClassifier

from pipeline.commands import check, inspect, verify
from pipeline.data import select
from pipeline.errors import CacheMismatch, ConfigError, DataError
from pipeline.experiment.networks import trained_network
from pipeline.inspection.origin import SampleCheck
from pipeline.measuring.neighbours import common_neighbours
from pipeline.measuring.prediction import predict_signals
from pipeline.models import build_network
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, evaluate, prepare_data, report

pytestmark = pytest.mark.usefixtures("few_penalties")

FREE = 40
HEADLESS = (
    "teacher.head=none",
    "teacher_training=null",
    "store={path: free.zarr, rows_per_block: 16}",
    "objectives={pkt: [pkt], maps: [{name: lfcc, width: 16, scales: [1, 2]}, vkd]}",
    "students.small.head=none",
    "students.vit.head=none",
)
NAMELESS = (*HEADLESS, "data={path: free.h5, split: images}", "evaluate.split=others")
"""A data set with neither labels nor classes."""


@pytest.fixture
def free(here: Path) -> Path:
    """`here`, and a packed data set without labels."""
    with h5py.File("free.h5", "w") as file:
        for seed, (split, count) in enumerate({"images": FREE, "others": 12}.items()):
            file[f"{split}/images"], _ = images(count, seed)
            file[f"{split}/ids"] = [f"{split}/{i}" for i in range(count)]
    return here


@pytest.fixture(scope="module")
def cached(road: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`road` with the cache of `HEADLESS`. Not to be changed."""
    copy = tmp_path_factory.mktemp("headless") / "road"
    with pytest.MonkeyPatch.context() as patch, one_thread():
        moved_to(road, copy, patch)
        cache_teacher.run(source(*HEADLESS), replace=False, wait=False)
    return copy


@pytest.fixture
def headless(cached: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `cached`, as the working directory."""
    return moved_to(cached, tmp_path / "headless", monkeypatch)


def folder(name: str, objectives: str) -> Path:
    return Path("artifacts/tiny/students") / name / objectives / "seed-0"


def test_images_without_labels_or_classes_are_an_ordinary_data_set(free: Path, capsys: pytest.CaptureFixture[str]):
    prepare_data.run(source("data={path: free.h5}"), replace=False)
    check.run(source(*NAMELESS), as_json=False)
    said = capsys.readouterr().out
    assert "40 samples to learn from, 0 held out, no classes" in said
    assert "without labels" not in said  # evaluation does without
    assert "embedding: pkt" in said

    cache_teacher.run(source(*NAMELESS), replace=False, wait=False)
    cache, beside = (TeacherCache.open(Path(name)) for name in ("free.zarr", "free.evaluation.zarr"))
    identity = cache.manifest.identity.plain()
    assert identity["signals"]["logits"] is None
    assert identity["signals"]["head"] is None
    assert identity["teacher"]["num_classes"] == 0
    assert set(cache.manifest.arrays) >= {"embedding", "features/block2", "labels"}
    assert "logits" not in cache.manifest.arrays
    signals = cache.read(0, np.arange(5))
    assert signals.logits.shape == (5, 0)
    assert signals.embedding is not None
    assert beside.manifest.identity.signals.plain()["embedding"]["encoding"] == "float32"
    assert beside.shapes.features == {}

    verify.run(source(*NAMELESS), role="all", check=SampleCheck(64), as_json=False)
    sheet = inspect.Sheet(1, 2, Path("sheet.png"))
    inspect.run(source(*NAMELESS), Path("free.zarr"), sheet=sheet, as_json=False)
    assert Path("sheet.png").exists()
    said = capsys.readouterr().out
    assert "no classes, input 8" in said
    assert "nothing wrong" in said

    for name, objectives in (("small", "pkt"), ("small", "maps"), ("vit", "pkt")):
        metrics = json.loads((student(name, objectives, *NAMELESS) / "metrics.json").read_text())
        assert metrics["holdout"] is None
    evaluate.run(source(*NAMELESS))
    report.run(source(*NAMELESS), write=True, table=True)
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.score.name == "agreement"
    assert found.teacher is not None
    assert found.teacher.metrics.agreement == 1.0
    assert all(each.metrics.top1 is None and 0 < each.metrics.agreement < 1 for each in found.students)  # type: ignore[operator]

    network = trained_network(folder("small", "pkt"), "small", 0)
    experiment = evaluate.Experiment(source(*NAMELESS).read(evaluate.Inputs))
    samples, views, _ = experiment.evaluation_cache("evaluation")
    own, teacher = (predict_signals(each, samples, views).embedding for each in (network, experiment.teacher))
    assert own is not None
    assert teacher is not None
    (scored,) = (each for each in found.students if (each.student, each.objectives) == ("small", "pkt"))
    assert scored.metrics.agreement == pytest.approx(common_neighbours(own, teacher))


def test_a_teacher_without_a_classifier_is_the_one_with_it_up_to_its_embedding(headless: Path):
    with_logits, without = (TeacherCache.open(Path(path)) for path in ("artifacts/caches/tiny.zarr", "free.zarr"))
    rows = np.arange(COUNT)
    for name in ("embedding", "features/block3"):
        assert torch.equal(with_logits.signal(name, 1, rows), without.signal(name, 1, rows))


def test_a_student_with_classes_learns_from_a_teacher_without(headless: Path):
    labels = (*HEADLESS[:3], "objectives={both: [hard-label, pkt]}")
    metrics = json.loads((student("small", "both", *labels) / "metrics.json").read_text())
    assert metrics["holdout"]["count"] == HOLDOUT
    assert 0 <= metrics["holdout"]["agreement"] <= 1  # by embeddings
    assert metrics["holdout"]["kl"] is None
    assert "holdout_top1" in (folder("small", "both") / "history.csv").read_text()
    evaluate.run(source(*labels))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.score.name == "top1"
    assert found.students[0].metrics.count == TEST


def test_a_student_without_classes_is_scored_by_its_teacher_and_opened_by_timm(headless: Path):
    settings = (*HEADLESS, "train.patience=1")
    made = student("small", "pkt", *settings)
    metrics = json.loads((made / "metrics.json").read_text())
    assert metrics["holdout"]["top1"] is None
    header, *rows = (made / "history.csv").read_text().splitlines()
    column = header.split(",").index("holdout_agreement")
    scores = [float(row.split(",")[column]) for row in rows]
    assert metrics["holdout"]["agreement"] == pytest.approx(max(scores), abs=1e-5)
    weights = load_file(made / "student.safetensors")
    assert not [name for name in weights if name.startswith("fc.")]
    options = {"widths": [16, 16, 16]}
    again = build_network("cifar_resnet8", 0, weights=made / "student.safetensors", input_size=8, options=options)
    assert again.taps["embedding"] == (16,)
    assert "logits" not in again.taps


def test_embeddings_are_scored_by_neighbours_and_a_probe_beside_the_teachers(headless: Path):
    student("small", "pkt", *HEADLESS)
    evaluate.run(source(*HEADLESS))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.score.name == "knn"
    assert found.teacher is not None
    opened = evaluate.Experiment(source(*HEADLESS).read(evaluate.Inputs))
    samples, views, _ = opened.evaluation_cache("evaluation")
    bank = select(opened.dataset, opened.config.data)[0]
    own = trained_network(folder("small", "pkt"), "small", CLASSES)
    for result, network in ((found.students[0], own), (found.teacher, opened.teacher)):
        scores = result.embedding
        assert scores is not None
        assert (scores.labels_from, scores.images) == ("train", COUNT)
        embeddings, known = (predict_signals(network, each, views).embedding for each in (samples, bank))
        assert embeddings is not None
        assert known is not None
        knn = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07))
        knn.fit(known.double().numpy(), bank.labels)
        assert scores.knn == pytest.approx(knn.score(embeddings.double().numpy(), samples.labels), abs=1 / TEST)
        assert 0.25 < scores.probe <= 1
    report.run(source(*HEADLESS), write=True, table=False)
    table = Path("artifacts/tiny/report/table.md").read_text()
    assert "kNN (%) | agreement (%) | linear probe (%)" in table
    assert "kNN and linear probe learn from 48 labeled images of split 'train'." in table


def test_embeddings_are_scored_where_labels_are_named_and_else_nothing_is_written_of_them(there: Path):
    evaluate.run(source())
    plain = json.loads(Path("artifacts/tiny/evaluation.json").read_text())
    assert "embedding" not in plain["teacher"]
    assert "embedding" not in plain["students"][0]
    evaluate.run(source("evaluate.labels_from=train"))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.score.name == "top1"
    scores = [each.embedding for each in found.students]
    assert all(each is not None and each.images == TRAIN for each in scores)
    with pytest.raises(ConfigError, match=r"evaluate\.labels_from"):
        evaluate.run(source("evaluate.labels_from=trian"))


def test_labels_come_from_another_split_that_has_some(here: Path):
    with h5py.File("data.h5", "r+") as file:
        file["unlabeled/images"], _ = images(FREE, 7)
        file["unlabeled/ids"] = [f"free/{i}" for i in range(FREE)]
    for split, what in (
        ("trian", r"evaluate\.labels_from[\s\S]*did you mean 'train'"),
        ("unlabeled", r"evaluate\.labels_from[\s\S]*none of the images of this split has a label"),
        ("test", r"evaluate\.labels_from[\s\S]*its own nearest neighbour"),
    ):
        with pytest.raises(ConfigError, match=what):
            check.run(source(f"evaluate.labels_from={split}"), as_json=False)


def test_images_that_are_learnt_from_and_reported_are_no_neighbours_of_themselves(here: Path):
    settings = (*HEADLESS, "evaluate.split=train")
    cache_teacher.run(source(*settings), replace=False, wait=False)
    student("small", "pkt", *settings)
    evaluate.run(source(*settings))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.score.name == "agreement"
    assert found.students[0].embedding is None


def test_what_reads_logits_is_refused_by_name_before_work(free: Path):
    asking = (
        *NAMELESS,
        "objectives={kd: [kd], hard: [hard-label]}",
        "students.small.head=null",
        "students.vit.head=null",
    )
    with pytest.raises(ConfigError) as error:
        check.run(source(*asking), as_json=False)
    assert "objectives.kd.0: needs the teacher's 'logits'" in str(error.value)
    assert "objectives.hard.0: hard-label needs labels" in str(error.value)


def test_logits_that_are_left_out_though_there_are_some(here: Path):
    settings = ("signals.logits=null", "store.path=free.zarr", "objectives={kd: [kd], pkt: [pkt], cat: [cat-kd]}")
    with pytest.raises(ConfigError, match=r"lacks what objective sets read of the teacher") as error:
        check.run(source(*settings), as_json=False)
    assert "  logits: kd" in str(error.value)
    assert "  logits: {encoding: float16}" in str(error.value)
    cache_teacher.run(source(*settings), replace=False, wait=False)
    cache = TeacherCache.open(Path("free.zarr"))
    assert cache.shapes.logits == 0
    assert cache.head is not None
    assert TeacherCache.open(Path("free.holdout.zarr")).shapes.logits == 4  # for agreement
    student("small", "cat", *settings)  # reads the head
    with pytest.raises(ConfigError, match=r"objectives\.kd\.0: needs the teacher's 'logits'"):
        student("small", "kd", *settings)


def test_a_teacher_without_a_classifier_is_not_trained(here: Path):
    with pytest.raises(ConfigError, match=r"teacher\.head: a teacher without a classifier is not trained"):
        check.run(source("teacher.head=none"), as_json=False)


def test_a_teacher_whose_classes_nobody_knows_is_refused(free: Path):
    with pytest.raises(ConfigError, match=r"teacher: .* neither labels nor class names") as error:
        check.run(source(*NAMELESS, "teacher.head=null"), as_json=False)
    assert "data.classes: N" in str(error.value)
    assert "teacher.head: none" in str(error.value)
    with pytest.raises(DataError, match="neither labels nor class names"):
        cache_teacher.run(source(*NAMELESS, "teacher.head=null"), replace=False, wait=False)


@pytest.mark.parametrize("kept", ["{logits: null, embedding: null}", "{embedding: null}"])
def test_a_cache_of_nothing_is_refused(free: Path, kept: str):
    with pytest.raises(ConfigError, match="keeps nothing"):
        cache_teacher.run(source(*NAMELESS, f"signals={kept}"), replace=False, wait=False)


def test_text_embeddings_become_the_head_and_students_are_scored_without_having_seen_a_label(here: Path):
    text = np.random.default_rng(0).normal(size=(CLASSES, 64)).astype(np.float32)  # as wide as the embedding
    np.save("text.npy", text)
    settings = (*HEADLESS[:3], "teacher.text_head=text.npy", "objectives={kd: [kd]}")
    cache_teacher.run(source(*settings), replace=False, wait=False)
    cache = TeacherCache.open(Path("free.zarr"))
    assert cache.shapes.logits == CLASSES
    signals = cache.read(0, np.arange(COUNT))
    assert signals.head is not None
    assert signals.embedding is not None
    torch.testing.assert_close(signals.head(signals.embedding), signals.logits, rtol=1e-4, atol=1e-4)
    student("small", "kd", *settings)
    evaluate.run(source(*settings))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.students[0].metrics.top1 is not None
    assert found.students[0].metrics.agreement is not None
    np.save("text.npy", text[::-1])
    with pytest.raises(CacheMismatch, match=r"teacher\.text_head"):
        student("small", "kd", *settings, replace=True)
    np.save("text.npy", text[:2])
    with pytest.raises(ConfigError, match="not of the classes of the data"):
        check.run(source(*settings), as_json=False)


def test_the_size_that_the_teacher_sees_and_its_pooling_are_in_the_identity(headless: Path):
    for change, field in (("teacher.input_size=16", "input_size"), ("teacher.pooling=mean", "pooling")):
        with pytest.raises(CacheMismatch, match=rf"teacher\.{field}"):
            student("small", "pkt", *HEADLESS, change)


def test_from_unlabeled_images_to_scores_beside_a_student_with_labels(free: Path):
    """A teacher without a classifier, images without labels, and labels that only evaluation sees."""
    with h5py.File("data.h5", "r+") as file:
        file["unlabeled/images"], _ = images(FREE, 7)
        file["unlabeled/ids"] = [f"free/{i}" for i in range(FREE)]
    sets = "pkt: [pkt], vkd: [vkd], itrd: [itrd], tas: [{name: tas, form: smoothed}]"
    sets += ", maps: [{name: lfcc, scales: [1, 2]}], crd: [{name: crd, negatives: 16}]"
    settings = (
        *HEADLESS[:3],
        "data={path: data.h5, split: unlabeled}",
        f"objectives={{{sets}}}",
        "students={small: {model: cifar_resnet8, input_size: 8, head: none}}",
        "evaluate={split: test, labels_from: train}",
        "train.epochs=1",
    )
    check.run(source(*settings), as_json=False)
    cache_teacher.run(source(*settings), replace=False, wait=False)
    for name in ("pkt", "vkd", "itrd", "tas", "maps", "crd"):
        student("small", name, *settings)
    evaluate.run(source(*settings))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert found.score.name == "knn"
    assert found.teacher is not None
    for each in (*found.students, found.teacher):
        assert each.embedding is not None
        assert each.embedding.images == TRAIN
        assert each.embedding.knn > 0.25  # of four classes
        assert each.metrics.agreement is not None
