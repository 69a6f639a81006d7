from __future__ import annotations

import contextlib
import json
import os
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hostile import bounded, deep, dumps, few, mutated
from hypothesis import given
from hypothesis import strategies as st
from reporting_fakes import experiment, metrics, result

from pipeline.errors import DataError
from pipeline.reporting.results import Evaluation, read_histories, read_run
from pipeline.reporting.summary import summarise

RUN = {
    "student": "resnet8",
    "objectives": "kd",
    "seed": 3,
    "model": "cifar_resnet8",
    "parameters": 78_042,
    "epochs": 3,
    "train_seconds": 12.5,
    "images_per_second": 3_000.0,
    "holdout": None,
    "final_loss": 0.7,
    "device": "a field of a later version",
}
HISTORY = """epoch,learning_rate,loss,kd/kl,holdout_top1,images_per_second,seconds
1,0.1,2.5,2.0,,3000,4
2,0.05,1.5,1.25,0.5,3100,3.9
"""


def write_run(root: Path, history: str = HISTORY, **changes: Any) -> Path:
    run = RUN | changes
    folder = root / run["student"] / run["objectives"] / f"seed-{run['seed']}"
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(run))
    (folder / "history.csv").write_text(history)
    return folder


def test_an_evaluation_survives_its_file(tmp_path: Path) -> None:
    evaluation, _ = experiment()
    path = tmp_path / "evaluation.json"
    path.write_text(evaluation.to_text())
    assert Evaluation.read(path) == evaluation
    plain = json.loads(path.read_text())
    assert set(plain) == {"experiment", "split", "teacher", "students"}
    assert plain["students"][0]["metrics"] == evaluation.students[0].metrics.to_json()
    assert plain["teacher"]["metrics"]["agreement"] is None


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file[\s\S]*evaluation\.json"):
        Evaluation.read(tmp_path / "evaluation.json")


@pytest.mark.parametrize(
    "text", ["", "[]", '{"experiment": "x"}', '{"experiment": 1, "split": "test"}', "NaN", deep(100_000), '["\\ud800"]']
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "evaluation.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a result of this version"):
        Evaluation.read(path)


def test_a_run_is_read(tmp_path: Path) -> None:
    run, history = read_run(write_run(tmp_path))
    assert (run.student, run.seed, run.holdout) == ("resnet8", 3, None)
    assert history.column("kd/kl").tolist() == [2.0, 1.25]
    assert np.isnan(history.column("holdout_top1")).tolist() == [True, False]
    assert np.isnan(history.column("never written")).all()


def test_a_holdout_is_read_as_metrics(tmp_path: Path) -> None:
    held_out = metrics(0.5, teacher=True)
    run, _ = read_run(write_run(tmp_path, holdout=held_out.to_json()))
    assert run.holdout == held_out


def test_histories_are_in_order_of_seeds(tmp_path: Path) -> None:
    for seed in (10, 2, 1):
        write_run(tmp_path, seed=seed)
    write_run(tmp_path, objectives="hard", seed=0)
    (tmp_path / "resnet8" / "kd" / ".seed-4.0123.partial").mkdir()
    found = [(h.objectives, h.seed) for h in read_histories(tmp_path)]
    assert found == [("hard", 0), ("kd", 1), ("kd", 2), ("kd", 10)]


@pytest.mark.parametrize(
    "text", ["", "epoch,loss\n1,high\n", "epoch,loss\n1\n", "loss\n1\n", "epoch\n" + "1" * 200_000, "\0"]
)
def test_a_malformed_history_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"not a run's history[\s\S]*history\.csv"):
        read_run(write_run(tmp_path, text))


def test_a_history_without_epochs_is_empty(tmp_path: Path) -> None:
    _, history = read_run(write_run(tmp_path, HISTORY.splitlines()[0] + "\n"))
    assert len(history.column("loss")) == 0


def test_rows_are_means_and_sample_deviations_over_seeds() -> None:
    top1 = [0.61, 0.64, 0.62]
    students = [result("a", "kd", seed, value) for seed, value in enumerate(top1)]
    (row,) = summarise(evaluation_of(students))
    assert row.seeds == 3
    assert row.score.mean == pytest.approx(statistics.mean(top1))
    assert row.score.spread == pytest.approx(float(np.std(top1, ddof=1)))
    assert row.kl is not None
    assert row.kl == (0.3, 0.0)


def test_one_seed_has_no_spread() -> None:
    (row,) = summarise(evaluation_of([result("a", "kd", 0, 0.5)]))
    assert row.score == (0.5, None)


def test_rows_are_in_order_of_first_appearance() -> None:
    pairs = [("b", "kd"), ("a", "hard"), ("b", "hard"), ("a", "kd"), ("b", "kd")]
    rows = summarise(evaluation_of([result(s, o, i, 0.5) for i, (s, o) in enumerate(pairs)]))
    got = [(row.student, row.objectives, row.seeds) for row in rows]
    assert got == [("b", "kd", 2), ("b", "hard", 1), ("a", "kd", 1), ("a", "hard", 1)]


def test_a_value_that_one_seed_lacks_is_unknown() -> None:
    first, second = result("a", "kd", 0, 0.5), result("a", "kd", 1, 0.5)
    second = second.model_copy(update={"metrics": metrics(0.5, teacher=True), "train_seconds": None})
    (row,) = summarise(evaluation_of([first, second]))
    assert row.agreement is None
    assert row.train_seconds is None
    assert row.images_per_second == 12_300.0


def evaluation_of(students: list[Any]) -> Evaluation:
    return Evaluation(experiment="x", split="test", teacher=None, students=tuple(students))


@pytest.mark.parametrize("name", ["evaluation.json", "history.csv", "metrics.json"])
def test_a_terabyte_is_not_read(tmp_path: Path, name: str) -> None:
    folder = write_run(tmp_path)
    os.truncate(folder / name, 1 << 40) if (folder / name).exists() else os.mkfifo(folder / name)
    with bounded(), pytest.raises(DataError):
        read_run(folder) if name != "evaluation.json" else Evaluation.read(folder / name)


@few
@given(data=st.data())
def test_any_evaluation(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "evaluation.json"
    document = {"experiment": "x", "split": "test", "teacher": None, "students": [{"student": "a", "metrics": {}}]}
    path.write_bytes(dumps(data.draw(mutated(document))).encode(errors="surrogatepass"))
    with bounded(), contextlib.suppress(DataError):
        Evaluation.read(path)
