"""Every command of docs/own-data.md, in the order of the page, on cut-outs of the photographs that scikit-learn ships.

The configuration is the page's own; only what takes time is made small, in `SMALL`, which must fit the page.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from experiment import quick_rates
from PIL import Image
from sklearn.datasets import load_sample_images

from pipeline.cli import main
from pipeline.models import build_network
from pipeline.yaml_text import parse_yaml

PAGE = (Path(__file__).parents[2] / "docs/own-data.md").read_text()
SMALL = {
    "model: tf_efficientnet_lite0": "model: cifar_resnet8",
    "model: mobilenetv3_small_050, input_size: 128": "model: cifar_resnet8, input_size: 16",
    "input_size: 176": "input_size: 16",
    ", size: 176": ", size: 32",
    "shorter_side: 256": "shorter_side: 40",
    "epochs: 16": "epochs: 1",
    "warmup_epochs: 3": "warmup_epochs: 0",
    "batch_size: 64": "batch_size: 16",
    "seeds: [0, 1, 2]": "seeds: [0]",
}
WEIGHTS = "weights/efficientnet-lite0.pth"
CUT = 48
"""Pixels of a cut-out's side."""


def configuration() -> str:
    """The page's configuration, made small."""
    (text,) = re.findall(r"```yaml\n(# configs/photos.yaml\n.*?)```", PAGE, re.DOTALL)
    for large, small in SMALL.items():
        assert large in text, f"the page no longer says {large!r}"
        text = text.replace(large, small)
    return text


def test_the_configuration_of_the_page_is_the_one_that_comes_with_decant() -> None:
    (text,) = re.findall(r"```yaml\n(# configs/photos.yaml\n.*?)```", PAGE, re.DOTALL)
    shipped = (Path(__file__).parents[2] / "configs/photos.yaml").read_text()
    assert parse_yaml(text, "the page") == parse_yaml(shipped, "configs/photos.yaml")


def commands() -> list[str]:
    """The lines of the page that begin with a command of ours or of DVC's, continued lines joined."""
    joined = PAGE.replace("\\\n", " ")
    return [line.strip() for line in joined.splitlines() if re.match(r" {4}(pipeline|dvc) ", line)]


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the page wants it: four classes in train and test, and weights of 1,000 classes."""
    monkeypatch.chdir(tmp_path)
    for name, image in zip(("china", "flower"), load_sample_images().images, strict=True):
        for side, columns in (("left", range(0, 6)), ("right", range(6, 12))):
            for place in range(12):
                split = {0: "test", 1: "val"}.get(place % 6, "train")
                folder = Path("photos") / split / f"{name}-{side}"
                folder.mkdir(parents=True, exist_ok=True)
                top, left = place // 6 * CUT, columns[place % 6] * CUT
                Image.fromarray(image[top : top + CUT, left : left + CUT]).save(folder / f"{place:02d}.jpg")
    Path("weights").mkdir()
    network = build_network("cifar_resnet8", 1000, input_size=16, seed=0)
    torch.save(network.model.state_dict(), WEIGHTS)
    Path("configs").mkdir()
    Path("configs/photos.yaml").write_text(configuration())
    return tmp_path


@pytest.mark.long
@pytest.mark.usefixtures("few_penalties")
def test_every_command_of_the_page_in_order(
    photographs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_rates(monkeypatch)
    typed = commands()
    assert len(typed) >= 8
    for command in typed:
        program, *arguments = shlex.split(command)
        if program == "pipeline":
            assert main(arguments, standalone_mode=False) in (None, 0), command
    said = capsys.readouterr().out
    assert "4 classes from image folder photos" in said
    for student in Path("artifacts/photos/students").glob("*/*/seed-0"):
        assert (student / "student.safetensors").exists()
    assert Path("artifacts/photos/report/report.html").exists()
    assert WEIGHTS in {file.as_posix() for file in Path("weights").rglob("*")}


@pytest.mark.long
def test_the_commands_of_dvc(photographs: Path) -> None:
    """As a person would: a repository of git and DVC, the file written, the whole road run, and run again."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}

    def run(*words: str) -> str:
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("git", "init", "--quiet")
    run(sys.executable, "-m", "dvc", "init", "--quiet")
    for command in commands():
        program, *arguments = shlex.split(command)
        if program == "dvc" or arguments[0] == "dvc-file":
            module = "dvc" if program == "dvc" else "pipeline.cli"
            run(sys.executable, "-m", module, *arguments)
    again = run(sys.executable, "-m", "dvc", "repro", "experiments/photos/dvc.yaml")
    assert "Running stage" not in again
