"""Networks that are not timm's go the whole road: from the cache of a teacher to the evaluation of a student."""

from __future__ import annotations

import json
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from experiment import content, images, interrupted, quick_rates, source, student
from ruamel.yaml import YAML

from pipeline.dvc_file.stages import stages_of
from pipeline.errors import CacheMismatch, ConfigError, DataError
from pipeline.experiment.config import ExperimentConfig
from pipeline.models import build_network
from pipeline.planning.binding import bind_experiment
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, evaluate, train_teacher

TEACHER = "teacher={model: 'own_nets:large', blocks: ['1', '3'], weights: own.safetensors, input_size: 8"
ARITHMETIC = "micro_batch: 16, precision: float32, device: cpu"
STUDENTS = "students={small: {model: 'own_nets:small', options: {width: 8}, input_size: 8, mean: [0.4], std: [0.2]}}"
OBJECTIVES = "objectives={lfcc: [{name: hard-label}, {name: kd}, {name: lfcc, width: 16, scales: [1, 2]}]}"
STORE = "store={path: own.zarr, rows_per_block: 20}"

CODE = """
from torch import nn

def large(num_classes=6, width=12, channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, num_classes),
    )

def small(num_classes, width=4):
    return large(num_classes, width, 1)

def normed(num_classes):
    pooled = nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)
    return nn.Sequential(*pooled, nn.ReLU(), nn.Flatten(), nn.Linear(4, num_classes))
"""


@pytest.fixture
def own(here: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The working directory, with the user's own module, and weights for six classes of a teacher."""
    Path("own_nets.py").write_text(CODE)
    quick_rates(monkeypatch)
    build_network("own_nets:large", 6, input_size=8, seed=0).save(Path("own.safetensors"))
    yield here
    sys.modules.pop("own_nets", None)


def settings(classes: str = "[5, 0, 3, 1]", *more: str) -> tuple[str, ...]:
    teacher = f"{TEACHER}, {ARITHMETIC}, mean: [0.5, 0.4, 0.3], std: [0.2, 0.2, 0.2], classes: {classes}}}"
    features = "signals.features={grid: 2, encoding: float32}"
    return (teacher, "teacher_training=null", STUDENTS, OBJECTIVES, STORE, features, *more)


def test_modules_of_ones_own_from_cache_to_evaluation(own: Path) -> None:
    cache_teacher.run(source(*settings()), replace=False, wait=False)
    cache = TeacherCache.open(Path("own.zarr"))
    identity = cache.manifest.identity.teacher.plain()
    assert (identity["classes"], identity["blocks"], identity["head"]) == ([5, 0, 3, 1], ["1", "3"], "6")
    whole = build_network("own_nets:large", 6, Path("own.safetensors"), 8, (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)).eval()
    pixels, _ = images(24, 1)
    with torch.inference_mode():
        said = whole(torch.from_numpy(pixels).permute(0, 3, 1, 2)).logits[:, [5, 0, 3, 1]]
    held = TeacherCache.open(Path("own.evaluation.zarr")).read(0, np.arange(24)).logits
    torch.testing.assert_close(held, said)

    folder = student("small", "lfcc", *settings())
    before = content(folder)
    evaluate.run(source(*settings()))
    (measured,) = json.loads(Path("artifacts/tiny/evaluation.json").read_text())["students"]
    assert measured["parameters"] == 8 * 9 + 8 + 16 * 8 * 9 + 16 + 16 * 4 + 4
    assert content(folder) == before
    saved = build_network("own_nets:small", 4, folder / "student.safetensors", 8, (0.4,), (0.2,), {"width": 8})
    assert saved.num_classes == 4

    raw = YAML(typ="safe").load(Path(folder / "config.yaml").read_text())
    assert raw["students"]["small"]["model"] == "own_nets:small"
    other = (*settings()[:2], "students={small: {model: 'own_nets:small', input_size: 8}}", *settings()[3:])
    with pytest.raises(DataError, match="code that the configuration does not name"):
        evaluate.run(source(*other))


def test_classes_by_name_are_those_of_the_cache_also_where_the_weights_are_not(own: Path) -> None:
    """Students are trained on other machines than the teacher runs on."""
    build_network("test_resnet.r160_in1k", 1000, input_size=8, seed=0).save(Path("whole.safetensors"))
    look = f"weights: whole.safetensors, input_size: 8, {ARITHMETIC}"
    teacher = "teacher={model: test_resnet.r160_in1k, classes: [n02099601, n01440764, %s, n01443537], " + look + "}"
    given = ("teacher_training=null", STUDENTS, "objectives={kd: [{name: kd}]}", STORE)
    cache_teacher.run(source(teacher % "n02102040", *given), replace=False, wait=False)
    Path("whole.safetensors").unlink()
    student("small", "kd", teacher % "n02102040", *given)
    with pytest.raises(CacheMismatch, match=r"teacher\.classes\.2: expected 7, got 217"):
        student("small", "kd", teacher % "n01514668", *given, replace=True)


def test_a_module_of_ones_own_is_trained_as_a_teacher(own: Path) -> None:
    where = "weights: mine/teacher.safetensors, input_size: 8"
    teacher = f"teacher={{model: 'own_nets:large', options: {{width: 4}}, {where}, {ARITHMETIC}}}"
    training = "teacher_training={epochs: 1, batch_size: 16, precision: float32, device: cpu, ema: 0.9}"
    signals = ("signals={logits: {encoding: float32}}", "objectives={kd: [{name: kd}]}")
    given = (teacher, training, STORE, *signals)
    assert bind_experiment(source(*given)).teacher.num_classes == 4
    train_teacher.run(source(*given), replace=False, wait=False)
    cache_teacher.run(source(*given), replace=False, wait=False)  # the folder says how its images are normalised
    pixels, _ = images(24, 1)
    network = build_network("own_nets:large", 4, Path("mine/teacher.safetensors"), 8, options={"width": 4}).eval()
    with torch.inference_mode():
        said = network(torch.from_numpy(pixels).permute(0, 3, 1, 2)).logits
    torch.testing.assert_close(TeacherCache.open(Path("own.evaluation.zarr")).read(0, np.arange(24)).logits, said)


def test_a_file_of_onnx_teaches(own: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    module = build_network("own_nets:large", 4, input_size=8, seed=0).model.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        torch.onnx.export(
            module,
            (torch.zeros(16, 3, 8, 8),),
            "own.onnx",
            input_names=["x"],
            output_names=["logits"],
            dynamo=False,
        )
    teacher = f"teacher={{model: own.onnx, {ARITHMETIC}, mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}}"
    kd = "objectives={kd: [{name: hard-label}, {name: kd}]}"
    signals = "signals={logits: {encoding: float32}, embedding: null}"
    given = (teacher, "teacher_training=null", STUDENTS, kd, STORE, signals)
    assert bind_experiment(source(*given)).teacher.num_classes == 4
    for refuses in (bind_experiment, partial(cache_teacher.run, replace=False, wait=False)):
        with pytest.raises(ConfigError, match=r"own\.onnx has no embedding"):
            refuses(source(*given, "signals={logits: {encoding: float32}}"))
    cache_teacher.run(source(*given), replace=False, wait=False)
    pixels, _ = images(24, 1)
    with torch.inference_mode():
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        said = module(((x - 0.5) / 0.2).expand(-1, 3, -1, -1))
    torch.testing.assert_close(TeacherCache.open(Path("own.evaluation.zarr")).read(0, np.arange(24)).logits, said)
    before = content(Path("own.zarr"))
    cache_teacher.run(source(*given), replace=False, wait=False)  # its file is compared, and it is not run again
    assert content(Path("own.zarr")) == before
    Path("moved").mkdir()
    Path("own.onnx").rename("moved/teacher.onnx")
    given = (teacher.replace("own.onnx", "moved/teacher.onnx"), *given[1:])
    cache_teacher.run(source(*given), replace=False, wait=False)
    assert content(Path("own.zarr")) == before
    student("small", "kd", *given)
    evaluate.run(source(*given))
    inputs = {stage.name: stage.deps for stage in stages_of(source(*given).read(ExperimentConfig))}
    assert Path("moved/teacher.onnx") in inputs["cache-teacher"]
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json")).teacher
    assert found is not None
    assert found.images_per_second is not None  # the file is here, and its rate is measured
    assert (found.parameters, found.macs) == (None, None)
    assert found.model == "teacher.onnx"  # in the cache it is `onnx`, with its digest
    (cache,) = json.loads(Path("artifacts/tiny/details.json").read_text())["caches"]
    assert cache["teacher"] == "teacher.onnx"
    written = Path("artifacts/tiny/students/small/kd/seed-0")
    assert "- Teacher: `teacher.onnx`." in (written / "model-card.md").read_text()
    assert json.loads((written / "model.json").read_text())["learnt"]["teacher"] == "teacher.onnx"


def test_check_finds_what_cannot_be_built(own: Path) -> None:
    wrong = settings("[5, 0, 3, 6]")
    students = "students={a: {model: torchvision/resnet81}, b: {model: 'own_nets:small', options: {widht: 8}}}"
    with pytest.raises(ConfigError) as caught:
        bind_experiment(source(wrong[0], "teacher_training=null", students, *wrong[3:]))
    for more, what in ((wrong[0], "chooses among the classes"), ("teacher.model=own.onnx", "not trained")):
        with pytest.raises(ConfigError, match=what):
            bind_experiment(source(more, "teacher.mean=[0.5]", "teacher.std=[0.5]"))
    with pytest.raises(ConfigError, match="not known how images were normalised"):
        bind_experiment(source(*settings(), "teacher.mean=null"))
    text = str(caught.value)
    for what in ("has no class 6", "did you mean 'resnet18'", "did you mean 'width'"):
        assert what in text


def test_check_finds_a_teacher_that_fails_only_while_it_is_trained(own: Path) -> None:
    normed = "teacher={model: 'own_nets:normed', blocks: ['0'], head: '5', input_size: 8, mean: [0.5], std: [0.5]}"
    training = "teacher_training={batch_size: 1, epochs: 1}"
    kept = ("signals={logits: {}, embedding: {}, features: null}", "objectives={kd: [{name: kd}]}")
    bind_experiment(source(normed, "teacher.weights=w/teacher.safetensors", "teacher_training={epochs: 1}", *kept))
    with pytest.raises(ConfigError) as caught:
        bind_experiment(source(normed, "teacher.weights=w/teacher.safetensors", training, *kept))
    assert [problem.key for problem in caught.value.problems] == ["teacher.model"]
    assert "but not while it is trained" in str(caught.value)
    assert "Expected more than 1 value per channel" in str(caught.value)
    assert "or `batch_size`" in str(caught.value)


@pytest.mark.parametrize(("batch_size", "fits"), [(1, False), (2, True), (47, True)])
def test_check_tries_students_with_the_smallest_batch_that_they_will_see(
    own: Path, batch_size: int, fits: bool
) -> None:
    student = "{model: 'own_nets:normed', blocks: ['0'], head: '5', input_size: 8, mean: [0.5], std: [0.5]}"
    settings = (f"students={{normed: {student}}}", f"train.batch_size={batch_size}", "objectives={kd: [{name: kd}]}")
    if fits:
        bind_experiment(source(*settings))
        return
    with pytest.raises(ConfigError) as caught:
        bind_experiment(source(*settings))
    assert [problem.key for problem in caught.value.problems] == ["students.normed"]
    assert "Expected more than 1 value per channel" in str(caught.value)


def test_dvc_runs_again_what_an_edited_module_builds(own: Path) -> None:
    experiment = source(*settings()).read(ExperimentConfig)
    inputs = {stage.name: [str(path) for path in stage.deps] for stage in stages_of(experiment)}
    for name in ("cache-teacher", "cache-evaluation", "train-students-lfcc", "evaluate"):
        assert "own_nets.py" in inputs[name]


def test_a_student_of_ones_own_ends_in_its_teachers_classifier_and_resumes(own: Path) -> None:
    simkd = "objectives={simkd: [{name: simkd}]}"
    given = (*settings()[:2], STUDENTS, simkd, *settings()[4:], "train.epochs=3")
    cache_teacher.run(source(*given), replace=False, wait=False)
    whole = content(student("small", "simkd", *given))
    interrupted("small", "simkd", *given, output=Path("again"))
    (scratch,) = Path().glob(".again*.partial")
    assert (scratch / "checkpoint.pt").exists()
    again = content(student("small", "simkd", *given, output=Path("again")))
    assert {"student.safetensors", "head.safetensors"} <= again.keys()
    for file in ("student.safetensors", "head.safetensors"):
        assert again[file] == whole[file]
    evaluate.run(source(*given))


def test_where_teacher_and_data_share_no_class_features_alone_are_learnt_from(own: Path) -> None:
    """The teacher knows six classes, none of them the data's four: it is built without its head."""
    teacher = f"{TEACHER}, {ARITHMETIC}, mean: [0.5, 0.4, 0.3], std: [0.2, 0.2, 0.2], head: none}}"
    signals = ("signals.logits=null", "signals.features={grid: 2, encoding: float32}")
    sets = "objectives={maps: [{name: hard-label}, {name: lfcc, width: 16, scales: [1, 2]}], kd: [kd]}"
    given = (teacher, "teacher_training=null", STUDENTS, sets, STORE, *signals)
    with pytest.raises(ConfigError, match=r"(?s)kd.*logits"):
        bind_experiment(source(*given))
    given = (*given, "objectives.kd=null")
    cache_teacher.run(source(*given), replace=False, wait=False)
    student("small", "maps", *given)
    evaluate.run(source(*given))
    (measured,) = Evaluation.read(Path("artifacts/tiny/evaluation.json")).students
    assert measured.metrics.top1 is not None


def test_classifiers_of_transformers_teach_and_learn(own: Path) -> None:
    transformers: Any = pytest.importorskip("transformers")
    size = {"image_size": 8, "patch_size": 2, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    names = {0: "none", 1: "b", 2: "a", 3: "d", 4: "c"}
    torch.manual_seed(0)
    config = transformers.ViTConfig(**size, num_hidden_layers=2, id2label=names)
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained("large")
    Path("large/preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}')
    teacher = f"teacher={{model: hf/./large, weights: pretrained, {ARITHMETIC}, classes: [a, b, c, d]}}"
    students = "students={small: {model: hf/./large, options: {num_hidden_layers: 1}, input_size: 8}}"
    given = (teacher, "teacher_training=null", students, *settings()[3:])
    cache_teacher.run(source(*given), replace=False, wait=False)
    pixels, _ = images(24, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    with torch.inference_mode():
        said = model((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).logits[:, [2, 1, 4, 3]]
    torch.testing.assert_close(TeacherCache.open(Path("own.evaluation.zarr")).read(0, np.arange(24)).logits, said)
    folder = student("small", "lfcc", *given)
    evaluate.run(source(*given))
    small = transformers.ViTConfig(**size, num_hidden_layers=1, num_labels=4)
    learnt = transformers.ViTForImageClassification(small)  # what was trained is what transformers loads
    learnt.load_state_dict(safetensors.torch.load_file(folder / "student.safetensors"))
