"""What networks see of images where the configuration leaves it open."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from experiment import source, student
from PIL import Image

from pipeline.commands import check
from pipeline.errors import CacheMismatch
from pipeline.models import build_network
from pipeline.store.reader import TeacherCache
from pipeline.yaml_text import parse_yaml
from stages import cache_teacher

OWN = "teacher={model: test_efficientnet, weights: own.pth, input_size: 40, precision: float32, device: cpu}"
ELSE = "store={path: new.zarr, rows_per_block: 20}"
FLAT = "signals={features: null}"
"""test_efficientnet's images are normalised by mean and std of ImageNet, and resized by bicubic interpolation."""
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def own(here: Path) -> Path:
    torch.save(build_network("test_efficientnet", 4, seed=0).model.state_dict(), "own.pth")
    return here


def test_bicubic_is_pillows():
    pixels = np.random.default_rng(0).integers(80, 176, (30, 30, 3), dtype=np.uint8)
    network = build_network("cifar_resnet8", 4, input_size=20, interpolation="bicubic", seed=0)
    ours = network.pixels(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0]
    theirs = np.asarray(Image.fromarray(pixels).resize((20, 20), Image.Resampling.BICUBIC))
    np.testing.assert_allclose((ours * 0.25 + 0.5).permute(1, 2, 0).numpy() * 255, theirs, atol=1.01)


def seen(folder: Path) -> dict[str, Any]:
    (section,) = parse_yaml((folder / "config.yaml").read_text(), "it")["students"].values()
    return {key: section[key] for key in ("mean", "std", "interpolation", "input_size")}


def test_a_teacher_of_ones_own_is_seen_as_timm_knows_it_and_students_alike(own: Path):
    cache_teacher.run(source(OWN, ELSE, FLAT), replace=False, wait=False)
    there = TeacherCache.open(Path("new.zarr")).manifest.identity.teacher
    assert (list(there.mean), list(there.std), there.interpolation) == (MEAN, STD, "bicubic")
    folder = student("small", "kd", OWN, ELSE, FLAT)
    assert seen(folder) == {"mean": MEAN, "std": STD, "interpolation": "bilinear", "input_size": 8}


def test_what_the_configuration_says_wins_and_a_cache_of_it_is_kept(own: Path):
    said = ("teacher.mean=[0.5, 0.5, 0.5]", "teacher.std=[0.25, 0.25, 0.25]", "teacher.interpolation=bilinear")
    cache_teacher.run(source(OWN, ELSE, FLAT, *said), replace=False, wait=False)
    assert "interpolation" not in TeacherCache.open(Path("new.zarr")).manifest.identity.teacher.plain()
    lines = r"write `mean: \[0.5,0.5,0.5\], std: \[0.25,0.25,0.25\], interpolation: bilinear` in `teacher`"
    with pytest.raises(CacheMismatch, match=lines):
        student("small", "kd", OWN, ELSE, FLAT)
    with pytest.raises(CacheMismatch, match=lines):
        cache_teacher.run(source(OWN, ELSE, FLAT), replace=False, wait=False)
    student("small", "kd", OWN, ELSE, FLAT, *said)


def test_a_teacher_that_decant_trained_is_seen_as_it_was(own: Path):
    """Its folder tells, that of version 0.1 by leaving it open."""
    Path("mine").mkdir()
    shutil.copy("own.pth", "mine/own.pth")
    Path("mine/config.yaml").write_text(
        "teacher: {model: test_efficientnet, weights: mine/own.pth, mean: null, std: null}\n"
        "teacher_training: {epochs: 1}\n"
    )
    cache_teacher.run(source(OWN.replace("own.pth", "mine/own.pth"), ELSE, FLAT), replace=False, wait=False)
    assert TeacherCache.open(Path("new.zarr")).manifest.identity.teacher.mean == (0.5, 0.5, 0.5)


def test_check_prints_what_each_network_sees(own: Path, capsys: pytest.CaptureFixture[str]):
    check.run(source(OWN, ELSE, FLAT, "teacher_training=null", "objectives={kd: [{name: kd}]}"), as_json=False)
    out = capsys.readouterr().out
    assert "input 40 px bicubic, mean 0.485 0.456 0.406, std 0.229 0.224 0.225" in out
    assert "small: cifar_resnet8, input 8 px bilinear, mean 0.485 0.456 0.406, std 0.229 0.224 0.225; random" in out
