"""`dvc metrics show` and `dvc plots show` understand what students leave behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from experiment import RUNS, source

from stages import dvc_file


@pytest.fixture
def project(there: Path) -> Path:
    """The tiny experiment with its students trained, as a DVC project."""
    dvc_file.run(source(), Path("dvc.yaml"))
    dvc("init", "--no-scm")
    return there


def dvc(*arguments: str) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_metrics_of_every_student(project: Path) -> None:
    shown = json.loads(dvc("metrics", "show", "--json"))[""]["data"]
    for student, objectives in RUNS:
        path = f"artifacts/tiny/students/{student}/{objectives}/seed-0/metrics.json"
        assert shown[path]["data"] == json.loads(Path(path).read_text())
        assert 0 <= shown[path]["data"]["holdout"]["top1"] <= 1


def test_curves_of_every_student(project: Path) -> None:
    """The columns that are plotted, with the numbers that the run wrote."""
    plots = json.loads(dvc("plots", "show", "--json"))["data"]
    for student, objectives in RUNS:
        history = Path(f"artifacts/tiny/students/{student}/{objectives}/seed-0/history.csv")
        written = list(csv.DictReader(history.read_text().splitlines()))
        (plot,) = plots[history.as_posix()]
        content = plot["content"]
        rows = (json.loads(content) if isinstance(content, str) else content)["data"]["values"]
        for column in ("loss", "holdout_top1"):
            drawn = [row for row in rows if row["field"] == column]
            assert [float(row["dvc_inferred_y_value"]) for row in drawn] == [float(row[column]) for row in written]
            assert [int(row["epoch"]) for row in drawn] == [1, 2]
