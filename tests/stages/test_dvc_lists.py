"""Lists of labels and names of classes are dependencies of DVC's stages, as the images are."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiment import begin, source

from pipeline.commands import dvc_file
from pipeline.config import parse_yaml


def dependencies(*lines: str) -> dict[str, list[str]]:
    """What every stage depends on, of a configuration with another section `data`."""
    text = Path("tiny.yaml").read_text().splitlines()
    Path("tiny.yaml").write_text("\n".join([f"data: {{path: data.h5, {', '.join(lines)}}}", *text[1:]]))
    dvc_file.run(source(), Path("dvc.yaml"))
    stages = parse_yaml(Path("dvc.yaml").read_text(), "dvc.yaml")["stages"]
    return {name: stage["deps"] for name, stage in stages.items()}


def test_lists_and_names_of_classes_are_dependencies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(begin(tmp_path))
    Path("photos").mkdir()
    for name in ("labels.csv", "order.txt", "classes.txt"):
        Path(name).touch()
    table = "source: {name: csv-labels, path: photos, labels: labels.csv, class_names: order.txt}"
    found = dependencies(table, "classes: classes.txt")
    assert {"photos", "labels.csv", "order.txt"} <= set(found["prepare-data"])
    for name, deps in found.items():
        assert ("classes.txt" in deps) == ("data.h5" in deps), name
    assert "classes.txt" in found["cache-teacher"]
    Path("train.txt").touch()
    lists = "{train: train.txt, test: none.txt}"
    found = dependencies(f"source: {{name: split-files, path: photos, lists: {lists}}}")
    assert {"photos", "train.txt"} <= set(found["prepare-data"])
    assert "none.txt" not in found["prepare-data"]  # nothing there to depend on
