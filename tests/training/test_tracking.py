"""Trackers get every epoch's values, and change nothing of what is trained."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline import plugins
from pipeline.experiment.run_folder import imported_code
from pipeline.training import TrainConfig
from pipeline.training.history import History
from pipeline.training.trackers import tensorboard
from pipeline.training.tracking import TRACKERS, with_tracker

ROWS = [{"epoch": 1.0, "loss": 2.5, "kd/kl": 0.5}, {"epoch": 2.0, "loss": 1.25, "kd/kl": 0.25}]


def train(tracker: object, rows: list[dict[str, float]], done: list[dict[str, float]] | None = None) -> History:
    config, history = TrainConfig.model_validate({"tracker": tracker}), History(list(done or []))
    with with_tracker(config.tracker, "small/kd/seed-0", config, history) as add:
        for row in rows:
            add(row)
    return history


def test_tensorboard_has_the_values_of_a_run_that_was_resumed(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tracker = {"name": "tensorboard", "folder": str(tmp_path)}
    later = {"epoch": 2.0, "loss": 9.0, "kd/kl": 9.0}
    train(tracker, [ROWS[0], later])  # killed after the second epoch, whose checkpoint was not written
    assert train(tracker, [ROWS[1]], done=[ROWS[0]]).rows == ROWS
    events = EventAccumulator(str(tmp_path / "small/kd/seed-0"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "kd/kl"}
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 2.5), (2, 1.25)]
    assert [(e.step, e.value) for e in events.Scalars("kd/kl")] == [(1, 0.5), (2, 0.25)]


def test_a_tracker_is_in_no_identity() -> None:
    with_one = TrainConfig.model_validate({"tracker": "tensorboard"})
    assert with_one.tracker is not None
    assert with_one.identity() == TrainConfig().identity()
    assert TrainConfig.model_validate(with_one.model_dump()) == with_one


def test_a_tracker_is_in_no_digest_of_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else DVC, which runs a student with another `train` again, would train it again."""
    for name in [name for name in sys.modules if name.startswith(TRACKERS)]:
        monkeypatch.delitem(sys.modules, name)
    before = imported_code()
    assert TrainConfig.model_validate({"tracker": "tensorboard"}).tracker is not None
    assert f"{TRACKERS}.tensorboard" in sys.modules
    assert imported_code() == before


class Recorded:
    """Stands for a library: keeps what is logged, by step."""

    def __init__(self) -> None:
        self.values: dict[int, dict[str, float]] = {}
        self.settings: Mapping[str, Any] = {}
        self.step, self.ended = 0, False
        self.how: object = None

    def put(self, key: str, value: float, step: int) -> None:
        self.values.setdefault(step, {})[key] = value

    def end(self, how: object = None) -> None:
        self.ended, self.how = True, how


def wandb(record: Recorded) -> ModuleType:
    def log(values: dict[str, float], step: int) -> None:
        for key, value in values.items():
            record.put(key, value, step)

    def finish(exit_code: int) -> None:
        record.end(exit_code)

    def init(**given: Any) -> object:
        record.settings = given["config"]
        assert (given["project"], given["name"]) == ("decant", "small/kd/seed-0")
        return SimpleNamespace(log=log, finish=finish)

    made = ModuleType("wandb")
    made.__dict__["init"] = init
    return made


def mlflow(record: Recorded) -> ModuleType:
    class MlflowClient:
        def __init__(self, tracking_uri: str | None) -> None: ...

        def get_experiment_by_name(self, name: str) -> None: ...

        def create_experiment(self, name: str) -> str:
            return name

        def create_run(self, experiment: str, run_name: str) -> object:
            assert (experiment, run_name) == ("decant", "small/kd/seed-0")
            return SimpleNamespace(info=SimpleNamespace(run_id="a"))

        def log_param(self, run: str, key: str, value: object) -> None:
            record.settings = {**record.settings, key: value}

        def log_metric(self, run: str, key: str, value: float, step: int) -> None:
            record.put(key, value, step)

        def set_terminated(self, run: str, status: str) -> None:
            record.end(status)

    made = ModuleType("mlflow")
    made.__dict__["MlflowClient"] = MlflowClient
    return made


def dvclive(record: Recorded) -> ModuleType:
    class Live:
        def __init__(self, folder: str, **given: object) -> None:
            assert folder == "dvclive/small/kd/seed-0"
            self.step = 0
            record.settings = {"epochs": 60}  # it takes none

        def log_metric(self, key: str, value: float) -> None:
            record.put(key, value, self.step)

        def make_summary(self) -> None: ...

        def end(self) -> None:
            record.end()

    made = ModuleType("dvclive")
    made.__dict__["Live"] = Live
    return made


@pytest.mark.parametrize("library", [wandb, mlflow, dvclive])
def test_the_others_get_every_epoch(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    name, record = library.__name__, Recorded()
    module = library(record)
    module.__spec__ = importlib.util.spec_from_loader(name, None)
    monkeypatch.setitem(sys.modules, name, module)
    train(name, [ROWS[1]], done=[ROWS[0]])
    assert record.values == {1: {"loss": 2.5, "kd/kl": 0.5}, 2: {"loss": 1.25, "kd/kl": 0.25}}
    assert record.settings["epochs"] == 60
    assert "tracker" not in record.settings
    assert record.ended


@pytest.mark.parametrize(("library", "failed", "done"), [(wandb, 1, 0), (mlflow, "FAILED", "FINISHED")])
def test_a_run_that_fails_is_closed_as_such(
    library: Any, failed: object, done: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, record = library.__name__, Recorded()
    module = library(record)
    module.__spec__ = importlib.util.spec_from_loader(name, None)
    monkeypatch.setitem(sys.modules, name, module)
    config = TrainConfig.model_validate({"tracker": name})
    with pytest.raises(KeyboardInterrupt), with_tracker(config.tracker, "small/kd/seed-0", config, History()):
        raise KeyboardInterrupt
    assert record.ended
    assert record.how == failed
    train(name, ROWS)
    assert record.how == done


class Server:
    """A tracking server that is there for some calls, and gone for the others."""

    def __init__(self, gone: range, *, for_good: bool = False) -> None:
        self.gone, self.for_good = gone, for_good
        self.calls, self.values, self.closed = 0, dict[int, Mapping[str, float]](), False

    def log(self, epoch: int, values: Mapping[str, float]) -> None:
        self.calls += 1
        if self.calls in self.gone:
            raise ConnectionError("no route to host\n  after 7 attempts")
        self.values[epoch] = dict(values)

    def close(self, *, failed: bool) -> None:
        if self.for_good:
            raise ConnectionError("no route to host")
        self.closed = True


def served(server: Server, epochs: int, monkeypatch: pytest.MonkeyPatch) -> History:
    monkeypatch.setattr(tensorboard, "open_tracker", lambda options, run: server)
    return train("tensorboard", [{"epoch": float(epoch), "loss": 1 / epoch} for epoch in range(1, epochs + 1)])


def test_a_server_that_drops_in_mid_run_gets_all_when_it_is_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Epochs 1 and 2 are taken; 3 and 4 fail; after one epoch without an attempt, 6 sends all that waited.
    server = Server(range(3, 5))
    assert len(served(server, 7, monkeypatch).rows) == 7
    assert server.values == {epoch: {"loss": 1 / epoch} for epoch in range(1, 8)}
    assert server.closed
    assert capsys.readouterr().err.splitlines() == [
        "note: tensorboard failed (ConnectionError: no route to host); the training goes on without it"
    ]


def test_a_server_that_stays_away_ends_no_training_and_what_it_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(range(3, 1000), for_good=True)
    assert len(served(server, 60, monkeypatch).rows) == 60
    assert sorted(server.values) == [1, 2]
    # Tried at epochs 1 to 4, after gaps of 1, 3, 7 and then of 15 at most: 6, 10, 18, 34, 50; and at the end.
    assert server.calls == 10
    assert capsys.readouterr().err.splitlines() == [
        "note: tensorboard failed (ConnectionError: no route to host); the training goes on without it",
        "note: tensorboard did not get epochs 3 to 60 of small/kd/seed-0; its history.csv has all",
    ]


def test_who_stops_a_training_waits_for_no_server_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(range(2, 1000))
    monkeypatch.setattr(tensorboard, "open_tracker", lambda options, run: server)
    config = TrainConfig.model_validate({"tracker": "tensorboard"})

    def stopped() -> None:
        with with_tracker(config.tracker, "small/kd/seed-0", config, History()) as add:
            for epoch in (1.0, 2.0):
                add({"epoch": epoch, "loss": 1.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert (server.calls, server.closed) == (2, True)
    assert "did not get epoch 2 of small/kd/seed-0" in capsys.readouterr().err


def test_a_password_is_not_written_into_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mlflow")
    module.__spec__ = importlib.util.spec_from_loader("mlflow", None)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    with pytest.raises(ValidationError, match="MLFLOW_TRACKING_PASSWORD"):
        TrainConfig.model_validate({"tracker": {"name": "mlflow", "uri": "https://me:secret@mlflow.example.org"}})
    for uri in ("https://mlflow.example.org:5000", "file:///runs@home", "runs", None):
        assert TrainConfig.model_validate({"tracker": {"name": "mlflow", "uri": uri}}).tracker is not None


@pytest.mark.parametrize("name", plugins.names(TRACKERS))
def test_what_is_not_installed_is_told_before_work_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None)
    with pytest.raises(ValidationError, match=rf"pip install 'decant-kd\[{name}\]'"):
        TrainConfig.model_validate({"tracker": name})


def test_the_nearest_tracker_is_named() -> None:
    with pytest.raises(ValidationError) as raised:
        TrainConfig.model_validate({"tracker": "tensorbord"})
    assert "tensorboard" in str(raised.value.errors()[0]["ctx"])
