"""Images that are not square, with one channel or five, through all stages."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from experiment import CLASSES, CONFIG, begin, one_thread, source, student

from pipeline.commands import check
from pipeline.data import PackedDataset
from pipeline.errors import ConfigError
from pipeline.experiment import evaluator
from pipeline.measuring.cost import Rate
from pipeline.reporting.results import Evaluation
from pipeline.store.reader import TeacherCache
from stages import cache_teacher, evaluate, prepare_data, train_teacher

FIVE = "  mean: [0.5, 0.5, 0.5, 0.4, 0.3]\n  std: [0.25, 0.25, 0.25, 0.2, 0.2]\n"
VIT = "students.vit.options={img_size: [16, 24], patch_size: 4, embed_dim: 48, depth: 2, num_heads: 3}"


def folder_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    """A working directory with an experiment on images of 8 x 12 pixels."""
    config = CONFIG.replace("input_size: 8", "input_size: [8, 12]").replace("    input_size: 16\n", "")
    sets = "  kd: [{name: hard-label, weight: 0.1}, {name: kd, weight: 0.9, temperature: 4}]\n"
    begin(tmp_path, config.replace("  hard: [{name: hard-label}]\n", "").replace(sets, ""))
    generator = np.random.default_rng(0)
    with h5py.File(tmp_path / "raw.h5", "r+") as file:
        for split, count in {"train": 72, "test": 24}.items():
            del file[split]
            file[f"{split}/images"] = generator.integers(0, 256, (count, 8, 12, channels), dtype=np.uint8)
            file[f"{split}/labels"] = np.arange(count) % CLASSES
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def test_five_channels_and_oblong_images_through_all_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder_of(tmp_path, monkeypatch, 5)
    text = Path("tiny.yaml").read_text()
    Path("tiny.yaml").write_text(text.replace("  micro_batch: 16\n", f"  micro_batch: 16\n{FIVE}"))
    with one_thread():
        prepare_data.run(source(VIT), replace=False)
        check.run(source(VIT), as_json=False)
        train_teacher.run(source(VIT), replace=False, wait=False)
        cache_teacher.run(source(VIT), replace=False, wait=False)
        for name in ("small", "vit"):
            folder = student(name, "lfcc", VIT)
            assert (folder / "student.safetensors").exists()
    assert PackedDataset.open(Path("data.h5")).split("train").image_shape == (8, 12, 5)
    teacher = TeacherCache.open(Path("artifacts/caches/tiny.zarr")).manifest.identity.teacher.plain()
    assert (teacher["input_size"], len(teacher["mean"])) == ([8, 12], 5)
    monkeypatch.setattr(evaluator, "images_per_second", lambda *arguments, **options: Rate(1000.0, 900.0, 1100.0, 3))
    evaluate.run(source(VIT))
    found = Evaluation.read(Path("artifacts/tiny/evaluation.json"))
    assert [(each.student, each.metrics.count) for each in found.students] == [("small", 24), ("vit", 24)]


@pytest.mark.parametrize(("channels", "said"), [(5, "the images have 5 channels, and the network takes 3 or 1")])
def test_networks_for_other_channels_are_refused_before_work_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int, said: str
):
    folder_of(tmp_path, monkeypatch, channels)
    prepare_data.run(source(VIT), replace=False)
    with pytest.raises(ConfigError) as caught:
        check.run(source(VIT), as_json=False)
    assert [problem.key for problem in caught.value.problems] == ["teacher", "students.small", "students.vit"]
    assert str(caught.value).count(said) == 3
    assert "name `mean` and `std` with 5 values each" in str(caught.value)


def test_a_network_for_grey_images_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder_of(tmp_path, monkeypatch, 1)
    prepare_data.run(source(VIT), replace=False)
    grey = ("teacher.mean=[0.5]", "teacher.std=[0.25]", "students.small.mean=[0.4]", "students.small.std=[0.3]", VIT)
    check.run(source(*grey), as_json=False)
    with pytest.raises(ConfigError, match=r"students.small.std: has 3 values and `mean` has 1"):
        check.run(source("students.small.mean=[0.4]", "students.small.std=[0.3, 0.3, 0.3]", VIT), as_json=False)
