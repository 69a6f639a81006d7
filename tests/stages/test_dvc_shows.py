"""`dvc metrics show` and `dvc plots show` understand what students leave behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from experiment import RUNS, source

from pipeline.commands import dvc_file
from stages import evaluate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # DVC's own
    from dvc.repo import Repo


@pytest.fixture
def project(there: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny experiment with its students trained, as a DVC project."""
    dvc_file.run(source(), Path("dvc.yaml"))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(there / ".site"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Repo.init(no_scm=True).close()
    return there


def dvc(*arguments: str) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "PYTHONWARNINGS": "ignore"}
    result = subprocess.run([sys.executable, "-m", "dvc", *arguments], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_accuracies_on_the_test_split_are_one_narrow_table(project: Path) -> None:
    """The mean over seeds of each student and objective set, as in `evaluation.json`, in 110 columns."""
    evaluate.run(source())
    measured = json.loads(Path("artifacts/tiny/evaluation.json").read_text())
    shown = json.loads(dvc("metrics", "show", "--json"))[""]["data"]
    (data,) = (file["data"] for file in shown.values())
    assert data["teacher"] == round(100 * measured["teacher"]["metrics"]["top1"], 2)
    for result in measured["students"]:  # of one seed each
        assert data[result["student"]][result["objectives"]] == round(100 * result["metrics"]["top1"], 2)
    assert sum(map(len, (data["small"], data["vit"]))) == len(RUNS)
    assert max(map(len, dvc("metrics", "show").splitlines())) <= 110


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
