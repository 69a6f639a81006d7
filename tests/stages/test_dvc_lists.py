"""Images, lists of labels, names of classes and weights to begin with: DVC depends on them, there or not."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment import begin, source

from pipeline.commands import dvc_file
from pipeline.experiment.config import ExperimentConfig
from pipeline.yaml_text import parse_yaml


def dependencies(*lines: str, text: str | None = None) -> dict[str, list[str]]:
    """What every stage depends on, of a configuration with another section `data`, or with another text."""
    if text is None:
        rest = Path("tiny.yaml").read_text().splitlines()[1:]
        text = "\n".join([f"data: {{path: data.h5, {', '.join(lines)}}}", *rest])
    Path("tiny.yaml").write_text(text)
    dvc_file.run(source(), Path("dvc.yaml"))
    stages = parse_yaml(Path("dvc.yaml").read_text(), "dvc.yaml")["stages"]
    return {name: stage["deps"] for name, stage in stages.items()}


@pytest.fixture(autouse=True)
def _begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(begin(tmp_path))


def test_lists_and_names_of_classes_are_dependencies():
    table = "source: {name: csv-labels, path: photos, labels: labels.csv, class_names: order.txt}"
    found = dependencies(table, "classes: classes.txt")
    assert {"photos", "labels.csv", "order.txt"} <= set(found["prepare-data"])
    for name, deps in found.items():
        assert ("classes.txt" in deps) == ("data.h5" in deps), name
    assert "classes.txt" in found["cache-teacher"]
    found = dependencies("source: {name: split-files, path: ~/photos, lists: {train: train.txt, test: test.txt}}")
    assert found["prepare-data"] == [str(Path.home() / "photos"), "train.txt", "test.txt"]


def starting(teacher: str, student: str) -> str:
    """A configuration whose teacher, and one of whose students, begin with something."""
    text = Path("tiny.yaml").read_text().replace("teacher_training: {", f"teacher_training: {{start: {teacher}, ")
    return text.replace("small: {", f"small: {{start: {student}, ")


def readers(found: dict[str, list[str]], file: str) -> set[str]:
    """The stages that depend on a file."""
    return {name.split("-student")[0] for name, deps in found.items() if file in deps}


def test_weights_to_begin_with_are_dependencies():
    found = dependencies(text=starting("weights/old.pth", "weights/small.bin"))
    assert readers(found, "weights/old.pth") == {"train-teacher"}
    assert readers(found, "weights/small.bin") == {"train"}
    found = dependencies(text=Path("tiny.yaml").read_text().replace("weights/old.pth", "pretrained"))
    assert "pretrained" not in {file for deps in found.values() for file in deps}


def test_what_is_there_by_now_changes_no_file():
    """Else `check` would call a dvc.yaml outdated wherever the photographs, or the weights, were not copied to."""
    dependencies("source: {name: image-folder, path: photos}", "classes: classes.txt")
    dependencies(text=starting("old.pth", "small.bin"))
    before = Path("dvc.yaml").read_bytes()
    Path("photos").mkdir()
    for name in ("old.pth", "small.bin", "classes.txt"):
        Path(name).touch()
    dvc_file.run(source(), Path("dvc.yaml"))
    assert Path("dvc.yaml").read_bytes() == before


def test_folders_of_models_are_dependencies():
    text = Path("tiny.yaml").read_text().replace("model: cifar_resnet8", "model: local-dir:mine", 1)
    assert readers(dependencies(text=text), "mine") == {
        "train-teacher",
        "cache-teacher",
        "cache-evaluation",
        "train",
        "evaluate",
    }
    small = text.replace("local-dir:mine", "cifar_resnet8").replace(
        "small: {model: cifar_resnet8", "small: {model: local-dir:mine"
    )
    assert readers(dependencies(text=small), "mine") == {"train"}


def test_places_in_the_home_folder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    places = ("data.path=~/a.h5", "store.path=~/a.zarr", "runs.path=~/runs", "teacher.weights=~/t.pth")
    experiment = source(*places).read(ExperimentConfig)
    written = [experiment.data.path, experiment.store.path, experiment.runs.path, experiment.teacher.weights]
    assert [str(path) for path in written] == [f"/home/me/{name}" for name in ("a.h5", "a.zarr", "runs", "t.pth")]
