"""A teacher whose cached answers are no better than chance, or name other classes, is told before students learn."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from experiment import CLASSES, COUNT, HOLDOUT, source

from pipeline.commands import check
from pipeline.measuring.teacher_accuracy import cached_accuracy
from pipeline.models import build_network
from pipeline.store.reader import TeacherCache
from stages import cache_teacher

PLAIN = "views.operations=[]"
"""A flip would turn a class into another."""
NEW = (
    "store={path: new.zarr, rows_per_block: 7}",
    *("teacher.weights=other.safetensors", "teacher_training=null", "data.holdout=null", PLAIN),
)


def cached(*overrides: str) -> None:
    cache_teacher.run(source(*NEW, *overrides), part="training", replace=False, wait=False)


def knowing(order: list[int]) -> None:
    """Write weights of a teacher that knows the classes of the experiment, and gives them in this order."""
    network = build_network("cifar_resnet8", CLASSES, input_size=8, seed=0)
    with h5py.File("data.h5") as file:
        images = torch.from_numpy(file["train/images"][:]).permute(0, 3, 1, 2).float()
        labels = torch.from_numpy(file["train/labels"][:])
    optimizer = torch.optim.Adam(network.model.parameters(), 1e-2)
    network.model.train()
    for _ in range(30):
        said = network(images.to(torch.uint8)).logits
        loss = F.cross_entropy(said, torch.tensor(order)[labels])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.save(Path("other.safetensors"))


def test_a_teacher_that_was_never_trained_is_told(here: Path, capsys: pytest.CaptureFixture[str]):
    build_network("cifar_resnet8", CLASSES, input_size=8, seed=5).save(Path("other.safetensors"))
    cached()
    printed = capsys.readouterr().out
    assert "cached training views" in printed
    assert "warning: chance alone gives" in printed
    check.run(source(*NEW), as_json=False)
    assert "warning: chance alone gives" in capsys.readouterr().out
    check.run(source(*NEW), as_json=True)
    (found,) = json.loads(capsys.readouterr().out)["teacher_accuracy"].values()
    assert found["near_chance"]
    assert found["count"] == COUNT + HOLDOUT
    cache = TeacherCache.open("new.zarr")
    right = cache.read(0, np.arange(COUNT + HOLDOUT)).logits.argmax(1).numpy() == cache.labels
    assert found["accuracy"] == pytest.approx(right.mean())


def test_a_teacher_that_knows_is_not_warned_of_and_one_of_another_order_by_name(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    knowing([0, 1, 2, 3])
    cached()
    printed = capsys.readouterr().out
    assert "the teacher is right on" in printed
    assert "warning" not in printed
    knowing([1, 2, 3, 0])
    cached("store={path: turned.zarr}")
    assert "warning: its classes seem to be in another order: with 4 of 4 renamed" in capsys.readouterr().out
    found = cached_accuracy(TeacherCache.open("turned.zarr"))
    assert found is not None
    assert found.order == (3, 0, 1, 2)


def test_nothing_is_said_without_labels(here: Path, capsys: pytest.CaptureFixture[str]):
    build_network("cifar_resnet8", CLASSES, input_size=8, seed=5).save(Path("other.safetensors"))
    with h5py.File("data.h5", "r+") as file:
        del file["train/labels"]
    cached("data.limit=null")
    check.run(source(*NEW, "data.limit=null", "objectives={kd: [{name: kd}]}"), as_json=False)
    printed = capsys.readouterr().out
    assert "is right on" not in printed
    assert "warning" not in printed


def test_a_damaged_cache_does_not_end_the_check(here: Path, capsys: pytest.CaptureFixture[str]):
    for file in Path("artifacts/caches/tiny.zarr/logits").rglob("c/*/*"):
        if file.is_file():
            file.write_bytes(b"nothing")
    check.run(source(), as_json=False)
    assert "the configuration is valid" in capsys.readouterr().out
