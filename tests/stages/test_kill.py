"""The real commands, killed with SIGKILL at random moments, and started again."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SMALL = [
    *("--set", "data.limit=300", "--set", "data.holdout.count=50", "--set", "teacher.micro_batch=50"),
    *("--set", "store.rows_per_block=50", "--set", "teacher_training.epochs=1", "--set", "views.count=40"),
]

pytestmark = pytest.mark.long


def run(*arguments: str, cwd: Path, kill_after: float | None = None) -> tuple[int, str]:
    """Exit status and output of a command that is killed after so many seconds."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    with (cwd / "log").open("w+b") as log:
        process = subprocess.Popen(arguments, cwd=cwd, env=environment, stdout=log, stderr=log)
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.seek(0)
        return process.returncode, log.read().decode()


def done(*arguments: str, cwd: Path) -> str:
    status, output = run(*arguments, cwd=cwd)
    assert status == 0, output
    return output


def digests(folder: Path) -> dict[str, str]:
    """Of every file but the manifest, whose provenance says how often the job was started."""
    kept = [path for path in folder.rglob("*") if path.is_file() and path != folder / "zarr.json"]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kill")
    shutil.copytree(ROOT / "configs", folder / "configs")
    done("pipeline", "prepare-data", *SMALL, cwd=folder)
    done("pipeline", "train-teacher", *SMALL, cwd=folder)
    return folder


def test_cache_teacher_killed_ten_times_ends_with_the_same_bytes(prepared: Path) -> None:
    command = ("pipeline", "cache-teacher", *SMALL)
    start = time.monotonic()
    done(*command, "--set", "store.path=whole/digits.zarr", cwd=prepared)
    whole = time.monotonic() - start
    chance, killed = random.Random(0), 0
    for _ in range(30):
        status, _ = run(
            *command, "--set", "store.path=cut/digits.zarr", cwd=prepared, kill_after=chance.uniform(0.5, 1) * whole
        )
        killed += status == -signal.SIGKILL
        if killed == 10:
            break
        if status == 0:  # finished in between: compare what was killed so far, and begin again
            same_bytes(prepared)
            shutil.rmtree(prepared / "cut")
    assert killed == 10
    done(*command, "--set", "store.path=cut/digits.zarr", cwd=prepared)
    same_bytes(prepared)


def same_bytes(folder: Path) -> None:
    for name in ("digits.zarr", "digits.holdout.zarr", "digits.evaluation.zarr"):
        assert digests(folder / "cut" / name) == digests(folder / "whole" / name)
    assert not list((folder / "cut").glob(".*.partial"))


def test_train_student_killed_ends_with_the_same_weights(prepared: Path) -> None:
    done("pipeline", "cache-teacher", *SMALL, cwd=prepared)
    command = ("pipeline", "train-student", *SMALL, "--student", "small", "--objectives", "lfcc-kd")
    options = ("--set", "train.checkpoint_epochs=1", "--set", "train.epochs=25")
    start = time.monotonic()
    done(*command, *options, "--output", "whole/student", cwd=prepared)
    whole = time.monotonic() - start
    chance, killed = random.Random(1), 0
    for _ in range(4):
        status, _ = run(
            *command, *options, "--output", "cut/student", cwd=prepared, kill_after=chance.uniform(0.6, 0.9) * whole
        )
        killed += status == -signal.SIGKILL
        if status == 0:
            break
    assert killed >= 1
    done(*command, *options, "--output", "cut/student", cwd=prepared)
    first, second = (prepared / name / "student" / "student.safetensors" for name in ("whole", "cut"))
    assert first.read_bytes() == second.read_bytes()


def test_dvc_repro_killed_and_started_again_at_once_loses_nothing(prepared: Path) -> None:
    shutil.rmtree(prepared / "artifacts")
    config = prepared / "configs" / "digits.yaml"
    text = config.read_text().replace("views:\n  count: 8", "views:\n  count: 200")
    config.write_text(text)
    done("git", "init", "-q", cwd=prepared)
    done("dvc", "init", "-q", cwd=prepared)
    done("pipeline", "dvc-file", "--output", "dvc.yaml", cwd=prepared)
    done("dvc", "repro", "train-teacher", cwd=prepared)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen(["dvc", "repro", "cache-teacher"], cwd=prepared, env=environment)
    scratch = prepared / "artifacts" / "caches"
    deadline = time.monotonic() + 60
    while not list(scratch.glob(".digits.zarr.*.partial/ledger.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()  # dvc alone: its child, the command, lives on
    first.wait()
    output = done("dvc", "repro", "cache-teacher", cwd=prepared)
    assert "waiting for another process" in output or "already" in output, output
    assert "computed again" not in output
    ledger = (scratch / "digits.zarr" / "ledger.jsonl").read_text().splitlines()
    assert len(ledger) == len(set(ledger))
    done("pipeline", "cache-teacher", cwd=prepared)  # finds it done
    assert not list(scratch.glob(".*.partial"))


def test_dvc_repro_killed_among_students_keeps_what_is_trained(tmp_path: Path) -> None:
    """DVC and its command die together, as when the machine loses power: one student is there, the next has begun."""
    few = "runs: {path: artifacts/digits, seeds: [0, 1]}"
    text = (ROOT / "configs/digits.yaml").read_text()
    for old, new in (
        ("runs: {path: artifacts/digits, seeds: [0, 1, 2]}", few),
        ("teacher_training: {epochs: 60", "teacher_training: {epochs: 1"),
        ("train: {epochs: 30, batch_size: 64", "train: {checkpoint_epochs: 1, epochs: 30, batch_size: 64"),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/digits.yaml").write_text(text)
    done("git", "init", "-q", cwd=tmp_path)
    done("dvc", "init", "-q", cwd=tmp_path)
    done("pipeline", "dvc-file", "--output", "dvc.yaml", cwd=tmp_path)
    done("dvc", "repro", "cache-teacher", cwd=tmp_path)
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    students = tmp_path / "artifacts/digits/students/small/kd"
    first = subprocess.Popen(
        ["dvc", "repro", "train-students-kd"], cwd=tmp_path, env=environment, start_new_session=True
    )
    deadline = time.monotonic() + 600
    while not list(students.glob(".seed-1.*.partial/checkpoint*")) and time.monotonic() < deadline:
        assert first.poll() is None
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    kept = (students / "seed-0/student.safetensors").stat()
    output = done("dvc", "repro", "train-students-kd", cwd=tmp_path)
    assert (students / "seed-0/student.safetensors").stat().st_mtime_ns == kept.st_mtime_ns
    assert f"{students.relative_to(tmp_path)}/seed-0: already there" in output
    alone = ("pipeline", "train-student", "--student", "small", "--objectives", "kd", "--seed", "1")
    done(*alone, "--output", "alone/student", cwd=tmp_path)
    file = "student.safetensors"
    assert (students / "seed-1" / file).read_bytes() == (tmp_path / "alone/student" / file).read_bytes()
