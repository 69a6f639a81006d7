"""Experiments of DVC as docs/dvc.md describes them: changed values, a queue over a grid, differences of commits."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from experiment import CONFIG, begin, source

from pipeline.commands import dvc_file

pytestmark = pytest.mark.long

HISTORY = "artifacts/tiny/students/small/hard/seed-0/history.csv"


def run(*words: str) -> str:
    """Run a program that must succeed; what it printed."""
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    identity = {f"GIT_{who}_{what}": "a@b" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(words, env=environment | identity, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def dvc(*arguments: str) -> str:
    return run(sys.executable, "-m", "dvc", *arguments)


def epochs(table: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """The rows of `dvc exp show` by the value of `train.epochs`."""
    rows: dict[str, list[dict[str, str]]] = {}
    for row in table:
        rows.setdefault(row["train.epochs"], []).append(row)
    return rows


def measured() -> float:
    """The accuracy in the workspace, in percent."""
    text = Path("artifacts/tiny/evaluation.json").read_text()
    (student,) = json.loads(text)["students"]
    return round(100 * float(student["metrics"]["top1"]), 2)


def test_changed_values_a_queue_and_differences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run with another value, two from a queue, and then what DVC shows of them all."""
    one_student = CONFIG[: CONFIG.index("  vit:")] + CONFIG[CONFIG.index("objectives:") :]
    begin(tmp_path, one_student[: one_student.index("  kd:")] + "train: {epochs: 2, batch_size: 16, device: cpu}\n")
    monkeypatch.chdir(tmp_path)
    dvc_file.run(source(), Path("dvc.yaml"))
    run("git", "init", "--quiet")
    dvc("init", "--quiet")
    Path(".gitignore").write_text("/artifacts\n/dvc_plots\n/data.h5\n")
    run("git", "add", ".")
    run("git", "commit", "--quiet", "--message", "configuration")
    dvc("repro")
    run("git", "add", "dvc.lock")
    run("git", "commit", "--quiet", "--message", "measured")
    accuracy = {"2": measured()}

    said = dvc("exp", "run", "--set-param", "tiny.yaml:train.epochs=1")
    assert "Running stage 'evaluate'" in said
    for stage in ("prepare-data", "train-teacher", "cache-teacher"):
        assert f"Running stage '{stage}'" not in said
    accuracy["1"] = measured()
    assert len(list(csv.DictReader(Path(HISTORY).read_text().splitlines()))) == 1

    difference = json.loads(dvc("metrics", "diff", "--json"))
    (changed,) = difference.values()
    assert {key: (value["old"], value["new"]) for key, value in changed.items()} in (
        {"small.hard": (accuracy["2"], accuracy["1"])},
        {},  # equal accuracies are no difference
    )
    plots = json.loads(dvc("plots", "diff", "HEAD", "workspace", "--json"))["data"][HISTORY]
    assert {revision for plot in plots for revision in plot["revisions"]} == {"HEAD", "workspace"}

    dvc("exp", "run", "--queue", "--set-param", "tiny.yaml:train.epochs=3,4")
    dvc("exp", "run", "--run-all")
    rows = epochs(list(csv.DictReader(dvc("exp", "show", "--csv").splitlines())))
    assert {"1", "2", "3", "4"} <= set(rows)
    for count in ("1", "2"):
        assert {round(float(row["small.hard"]), 2) for row in rows[count]} == {accuracy[count]}
    for count in ("3", "4"):
        assert all(row["small.hard"] for row in rows[count])
    short = dvc("exp", "show", "--only-changed", "--drop", "artifacts/.*", "--md")
    assert max(map(len, short.splitlines())) <= 110
