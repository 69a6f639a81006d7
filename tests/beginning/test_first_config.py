"""`pipeline init`: what it finds in a folder, and that what it writes is valid and splits honestly."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from pipeline.beginning.first_config import write_first
from pipeline.beginning.survey import look_at
from pipeline.cli import main
from pipeline.errors import DataError
from pipeline.experiment.config import ExperimentConfig
from pipeline.experiment.source import ConfigFile
from pipeline.models.pretrained import has_no_weights, own_models
from pipeline.planning.binding import bind_experiment
from pipeline.yaml_text import parse_yaml


def picture(path: Path, side: int = 20, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.as_posix())).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def images(folder: Path, *places: str, count: int = 12, side: int = 20) -> Path:
    """A folder with so many images at each place."""
    for place in places:
        for number in range(count):
            picture(folder / place / f"{number:02}.png", side)
    return folder


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def init(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["init", *arguments])


def written(*arguments: str) -> ExperimentConfig:
    """The configuration that is written for the folder `photos`, bound as `check` does before images are packed."""
    result = init("photos", *arguments)
    assert result.exit_code == 0, result.output
    return bind_experiment(ConfigFile(Path("photos.yaml"))).experiment


def test_splits_of_ones_own_are_used() -> None:
    images(Path("photos"), *(f"{split}/{name}" for split in ("train", "val", "test") for name in ("cat", "dog")))
    experiment = written()
    assert (experiment.data.split, experiment.evaluate.split) == ("train", "test")
    assert experiment.data.holdout is not None
    assert experiment.data.holdout.split == "val"
    assert experiment.teacher.input_size == 20
    assert list(experiment.students) == ["small"]
    assert list(experiment.objectives) == ["hard", "kd"]


def test_without_a_test_split_a_fifth_of_every_class_is_listed_for_it() -> None:
    images(Path("photos"), "cat", "a dog")
    experiment = written()
    train, test = (Path(f"photos.{split}.txt").read_text().splitlines() for split in ("train", "test"))
    assert sorted(train + test) == sorted(f"{name}/{n:02}.png" for name in ("cat", "a dog") for n in range(12))
    assert Counter(line.partition("/")[0] for line in test) == {"cat": 2, "a dog": 2}
    source = experiment.data.source
    assert source is not None
    assert source.name == "split-files"
    assert CliRunner().invoke(main, ["prepare-data", "--config", "photos.yaml"]).exit_code == 0
    bound = bind_experiment(ConfigFile(Path("photos.yaml")))  # with the images
    assert bound.data is not None
    assert bound.data.dataset.class_names == ("a dog", "cat")
    assert (bound.data.training.count, bound.data.dataset.split("test").count) == (18, 4)


def test_a_val_split_is_reported_where_there_is_no_test_split() -> None:
    images(Path("photos"), "train/cat", "train/dog", "val/cat", "val/dog")
    experiment = written()
    assert experiment.evaluate.split == "val"
    assert experiment.data.holdout is not None
    assert experiment.data.holdout.count == 2


def test_images_without_folders_are_unlabeled() -> None:
    images(Path("photos"), ".")
    experiment = written("--teacher", "mobilenetv3_small_050")  # a small one to build
    assert (experiment.data.split, experiment.teacher.head) == ("unlabeled", "none")
    assert experiment.signals.logits is None
    assert all(student.head == "none" for student in experiment.students.values())
    assert "split: unlabeled  # students learn from these, so scores flatter" in Path("photos.yaml").read_text()


def test_large_photographs_are_packed_small_and_have_a_teacher_with_weights() -> None:
    images(Path("photos"), "cat", "dog", count=5, side=330)
    init("photos", "--teacher", "tf_efficientnet_lite0", "--weights", "lite0.pth")
    raw = parse_yaml(Path("photos.yaml").read_text(), "photos.yaml")
    assert raw["data"]["source"]["shorter_side"] == 256
    assert raw["teacher"] == {
        "model": "tf_efficientnet_lite0",
        "weights": "artifacts/teachers/photos/teacher.safetensors",
        "match": "order",
        "input_size": 224,
        "precision": "float32",
        "micro_batch": 64,
    }
    assert raw["teacher_training"] == {"start": "lite0.pth", "freeze": "backbone", "probe": 2}
    assert raw["evaluate"]["operations"][0] == {"name": "resize", "size": 224}


def test_what_is_found_is_told() -> None:
    images(Path("photos"), "cat", "dog")
    picture(Path("photos/cat/grey.png"), 30, "L")
    Path("photos/dog/broken.jpg").write_bytes(b"no image")
    survey = look_at(Path("photos"))
    assert survey.sizes == {(20, 20): 24, (30, 30): 1}
    assert survey.modes == {"RGB": 24, "L": 1}
    assert list(survey.unreadable) == ["dog/broken.jpg"]
    result = init("photos")
    for text in ("26 images of 2 classes, 13 to 13 of each", "1 L, 24 RGB", "dog/broken.jpg"):
        assert text in result.stdout
    assert "unreadable: skip" in Path("photos.yaml").read_text()
    assert result.stdout.splitlines()[-3:] == [
        f"  pipeline {command} --config photos.yaml" for command in ("prepare-data", "check", "train-teacher")
    ]


def test_names_that_break_lines_stay_in_the_comment() -> None:
    images(Path("photos"), "cat", "dog")
    survey = dataclasses.replace(look_at(Path("photos")), unreadable={"a\nteacher: {}\x1b.png": "no image"})
    text = write_first(survey, Path("photos.yaml"), None, None).text
    assert parse_yaml(text, "photos.yaml")["teacher"]["model"] == "cifar_resnet20"
    assert "#   cannot be read: a teacher: {}\\x1b.png: no image\n" in text


def test_of_a_teacher_that_is_named_no_figures_are_guessed() -> None:
    images(Path("photos"), "cat", "dog")
    written()
    assert "on these" in Path("photos.yaml").read_text()
    assert init("photos", "--force", "--teacher", "cifar_resnet8").exit_code == 0
    assert "on these" not in Path("photos.yaml").read_text()


def test_a_network_that_has_no_weights_is_trained_from_random_ones() -> None:
    images(Path("photos"), "cat", "dog")
    for model in ("cifar_resnet8", "mine:network"):
        assert init("photos", "--force", "--teacher", model).exit_code == 0
        raw = parse_yaml(Path("photos.yaml").read_text(), "photos.yaml")
        assert raw["teacher"]["model"] == model
        assert "start" not in raw["teacher_training"]
        assert "freeze" not in raw["teacher_training"]
    refused = init("photos", "--force", "--teacher", "cifar_resnet8", "--weights", "pretrained")
    assert refused.exit_code == 2
    assert "there are no weights of cifar_resnet8" in refused.stderr
    init("photos", "--force", "--teacher", "cifar_resnet8", "--weights", "mine.pth")
    assert parse_yaml(Path("photos.yaml").read_text(), "")["teacher_training"]["start"] == "mine.pth"
    images(Path("unsorted"), ".")
    assert "name a file with --weights" in init("unsorted", "--teacher", "cifar_resnet8").stderr


def test_which_networks_have_no_weights() -> None:
    """By their names alone: against those that timm is told of."""
    assert len(own_models()) > 10
    assert all(map(has_no_weights, own_models()))
    assert not any(map(has_no_weights, ("resnet50", "torchvision/resnet18", "hf/owner/name", "vit_tiny_patch16_224")))


def test_nothing_is_written_over() -> None:
    images(Path("photos"), "train/cat", "train/dog", "test/cat", "test/dog", count=6)
    Path("photos.yaml").write_text("mine")
    refused = init("photos")
    assert refused.exit_code == 2
    assert "--output" in refused.stderr
    assert "--force" in refused.stderr
    assert Path("photos.yaml").read_text() == "mine"
    assert init("photos", "--output", "folder/other.yaml").exit_code == 0
    assert init("photos", "--force").exit_code == 0
    assert Path("photos.yaml").read_text() != "mine"


@pytest.mark.parametrize(
    ("places", "message"),
    [((), "there is no such folder"), (("cat",), "too few to learn from")],
)
def test_folders_that_cannot_be_used_are_refused(places: tuple[str, ...], message: str) -> None:
    images(Path("photos"), *places, count=2)
    result = init("photos")
    assert result.exit_code == 2
    assert not Path("photos.yaml").exists()
    assert message in result.stderr


def test_a_folder_that_can_be_understood_in_two_ways_is_refused() -> None:
    images(Path("photos"), "test/cat", "test/dog", "bird")  # enough of each: what is wrong is where they are
    result = init("photos")
    assert result.exit_code == 2
    assert "bird" in result.stderr
    assert not Path("photos.yaml").exists()


def test_broken_images_alone_are_no_images() -> None:
    Path("photos/cat").mkdir(parents=True)
    Path("photos/cat/a.png").touch()
    with pytest.raises(DataError, match="none of the images can be read"):
        look_at(Path("photos"))
