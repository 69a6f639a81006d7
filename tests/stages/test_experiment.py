"""An experiment opens what its sections name, once, when asked; the digest of a file of weights needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from experiment import CLASSES, COUNT, HOLDOUT, TEST, source, student

import pipeline.experiment.experiment
from pipeline.errors import CacheMismatch, ConfigError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.experiment import Experiment
from pipeline.experiment.networks import build, build_teacher, identity_without_building
from pipeline.experiment.section_sets import CacheSections
from pipeline.models import TeacherConfig
from pipeline.store.reader import TeacherCache
from stages import evaluate

WEIGHTS = Path("artifacts/teacher/teacher.safetensors")


def count_builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The teachers that are built from now on."""
    built: list[str] = []

    def counting(config: Any, names: Any) -> Any:
        built.append(config.model)
        return build_teacher(config, names)

    monkeypatch.setattr(pipeline.experiment.experiment, "build_teacher", counting)
    return built


def test_a_student_learns_without_its_teacher_being_built(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    built = count_builds(monkeypatch)
    folder = student("small", "kd", "train.epochs=1")
    assert built == []
    assert "not checked" not in capsys.readouterr().out
    assert json.loads((folder / "metrics.json").read_text())["holdout"]["kl"] is not None  # compared with it


def renamed_tensors(state: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The tensors in the order of the names, under others that do not tell where they belong."""
    return {f"tensor{i}.{name.rpartition('.')[2]}": state[name] for i, name in enumerate(names)}


def test_weights_under_other_names_are_compared_as_the_network_has_them_which_is_built_once(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    state = safetensors.torch.load_file(WEIGHTS)
    ordered = build(source().read(CacheSections).teacher, CLASSES).model.state_dict()
    torch.save(renamed_tensors(state, ordered), "renamed.pt")
    built = count_builds(monkeypatch)
    renamed = ("teacher.weights=renamed.pt", "teacher.match=order", "teacher_training=null")
    student("small", "kd", *renamed, "train.epochs=1")
    assert built == ["cifar_resnet8"]
    state["fc.bias"][0] += 1e-6
    torch.save(renamed_tensors(state, ordered), "renamed.pt")
    with pytest.raises(CacheMismatch, match=r"teacher\.weights: expected"):
        student("small", "hard", *renamed)


def test_evaluation_builds_the_teacher_once_to_measure_what_it_costs(there: Path, monkeypatch: pytest.MonkeyPatch):
    built = count_builds(monkeypatch)
    evaluate.run(source())
    assert built == ["cifar_resnet8"]


@pytest.mark.parametrize(
    "section",
    [
        {"model": "cifar_resnet8"},
        {"model": "cifar_resnet8", "input_size": 8, "options": {"widths": [16, 16, 32]}, "mean": [0.1, 0.2, 0.3]},
        {"model": "vit_tiny_patch16_224", "options": {"img_size": 16, "patch_size": 4, "depth": 1, "embed_dim": 48}},
        {"model": "mobilenetv3_small_050", "interpolation": "bicubic"},
    ],
)
def test_what_a_network_is_can_be_said_without_building_it(section: dict[str, Any]):
    config = TeacherConfig.model_validate(section)
    network = build(config, 5)
    assert identity_without_building(config, 5) == network.identity() | {"interpolation": network.interpolation}


def test_what_normalises_images_is_that_of_the_weights(here: Path):
    for section in ({}, {"mean": [0.4, 0.5, 0.5]}):
        config = source().read(CacheSections).teacher.model_copy(update={"input_size": None, **section})
        network = build(config, CLASSES)
        said = identity_without_building(config, CLASSES)
        assert said == network.identity() | {"interpolation": network.interpolation}


def test_of_a_model_that_a_folder_describes_only_the_built_network_tells():
    config = TeacherConfig(model="local-dir:some")
    with pytest.raises(Exception, match="local-dir:some cannot be read"):
        identity_without_building(config, CLASSES)


def test_everything_is_opened_once_when_it_is_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch):
    experiment = Experiment(source().read(ExperimentConfig))
    assert experiment.paths.keys() == {"training", "holdout", "evaluation"}
    held = experiment.caches
    assert {name: each.samples.count for name, each in held.items()} == {
        "training": COUNT,
        "holdout": HOLDOUT,
        "evaluation": TEST,
    }
    assert experiment.data is experiment.data
    assert experiment.evaluation_cache("holdout") is experiment.evaluation_cache("holdout")
    built = count_builds(monkeypatch)
    assert experiment.teacher is experiment.teacher
    assert len(built) == 1
    identity = TeacherCache.open(experiment.paths["training"]).manifest.identity
    required = experiment.required(held["training"], identity, exact=True)
    assert required.teacher is not None
    assert required.teacher.weights == experiment.teacher.weights_digest()
    assert required.unchecked == ()


def test_an_experiment_without_a_holdout_has_no_cache_of_it(here: Path):
    experiment = Experiment(source("data.holdout=null").read(CacheSections))
    assert experiment.paths.keys() == experiment.caches.keys() == {"training", "evaluation"}
    with pytest.raises(ConfigError, match=r"data\.holdout: nothing is held out"):
        experiment.evaluation_cache("holdout")
