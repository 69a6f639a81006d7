"""One student, trained by two processes that torchrun begins."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from experiment import student
from safetensors.torch import load_file

from pipeline.errors import ConfigError
from pipeline.training.parallel.torchrun import SeveralProcesses
from pipeline.training.share import Share

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pipeline"]
COMMAND = ["train-student", "--config", "tiny.yaml", "--student", "small", "--objectives", "lfcc"]
EPOCHS = ("--set", "train.epochs=8")


def begun(output: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [*TORCHRUN, *COMMAND, *EPOCHS, "--output", output]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)


@pytest.mark.long
def test_two_processes_of_torchrun_train_what_one_does(here: Path) -> None:
    """They go on from a checkpoint bit by bit, and only the first of them speaks."""
    first = begun("one")
    said, log = first.communicate()
    assert first.returncode == 0, log
    assert [line.split(":")[0] for line in said.splitlines()] == ["all 2 views match the teacher's pixels", "one"]
    assert json.loads(Path("one/metrics.json").read_text())["processes"] == 2

    second = begun("two")
    deadline = time.monotonic() + 120
    while not list(Path().glob(".two.*.partial/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    (holder,) = Path().glob(".two.*.partial/holder.json")
    os.kill(json.loads(holder.read_text())["pid"], signal.SIGKILL)
    _, log = second.communicate()
    assert second.returncode == 1
    assert not Path("two").exists(), log
    again = begun("two")
    assert "going on from" in again.communicate()[1]
    one, two = load_file("one/student.safetensors"), load_file("two/student.safetensors")
    assert all(torch.equal(one[name], two[name]) for name in one)

    alone = student("small", "lfcc", "train.epochs=8", output=Path("alone"))
    got, expected = losses(Path("one")), losses(alone)
    assert got[0] == pytest.approx(expected[0], rel=1e-5)
    assert got == pytest.approx(expected, rel=3e-2), "as far apart as runs of one thread and of two"


def test_batches_that_are_too_small_are_refused_before_views_are_compared(here: Path) -> None:
    with pytest.raises(ConfigError, match="each of the 20 processes needs a sample of every batch"):
        student("small", "lfcc", world=SeveralProcesses(Share(0, 20)))
    assert not list(here.glob("artifacts/**/*.partial"))


def test_too_few_gpus_are_refused_before_work_starts(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr("pipeline.experiment.experiment.Experiment.data", None)
    with pytest.raises(ConfigError, match="2 processes of this machine need a GPU each") as refused:
        student("small", "lfcc", "train.device=auto", world=SeveralProcesses(Share(0, 2, local=2)))
    assert "--nproc-per-node 1" in str(refused.value)
    assert not list(here.glob("artifacts/**/*.partial"))


def losses(folder: Path) -> list[float]:
    """Of every epoch."""
    rows = csv.DictReader((folder / "history.csv").read_text().splitlines())
    return [float(row["loss"]) for row in rows]
