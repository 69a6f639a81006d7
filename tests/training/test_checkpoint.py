from __future__ import annotations

import io
import itertools
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import bounded, changed_bytes, few
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import TrainingError
from pipeline.training import Checkpoint
from pipeline.training.checkpoint import CheckpointInterval


def checkpoint(**changes: Any) -> Checkpoint:
    values: dict[str, Any] = {
        "epoch": 3,
        "model": {"weight": torch.arange(6.0).reshape(2, 3)},
        "objectives": {},
        "optimizer": {"state": {0: {"step": torch.tensor(9.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "ema": None,
        "history": [{"epoch": 1, "loss": 0.5}],
        "seconds": 1.5,
    }
    return Checkpoint(**{**values, **changes})


def test_comes_back_as_it_was(tmp_path: Path):
    checkpoint().save(tmp_path)
    found = Checkpoint.load(tmp_path)
    assert found is not None
    assert torch.equal(found.model["weight"], checkpoint().model["weight"])
    assert torch.equal(found.optimizer["state"][0]["step"], torch.tensor(9.0))
    rest = ("epoch", "objectives", "ema", "history", "seconds")
    assert all(getattr(found, name) == getattr(checkpoint(), name) for name in rest)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_replaces_the_one_before(tmp_path: Path):
    checkpoint().save(tmp_path)
    checkpoint(epoch=4).save(tmp_path)
    found = Checkpoint.load(tmp_path)
    assert found is not None
    assert found.epoch == 4


def test_none_where_there_is_none_and_after_it_was_removed(tmp_path: Path):
    assert Checkpoint.load(tmp_path) is None
    checkpoint().save(tmp_path)
    Checkpoint.remove(tmp_path)
    Checkpoint.remove(tmp_path)
    assert Checkpoint.load(tmp_path) is None


class Executed:
    """What a pickle could run."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


GARBAGE = {
    "nothing": b"",
    "text": b"not a checkpoint",
    "noise": bytes(range(256)) * 8,
    "a list": saved([1, 2, 3]),
    "fields missing": saved({"epoch": 3}),
    "fields of another version": saved({**vars(checkpoint()), "random_state": 1}),
    "code in a pickle": pickle.dumps(Executed()),
    "code in an archive": saved({"epoch": Executed()}),
    "cut off": saved(vars(checkpoint()))[:-200],
    "an epoch as text": saved(vars(checkpoint(epoch="3"))),
    "a negative epoch": saved(vars(checkpoint(epoch=-1))),
    "no rows for three epochs": saved(vars(checkpoint(history=[]))),
    "a history that is text": saved(vars(checkpoint(history="epoch"))),
    "a state that is a list": saved(vars(checkpoint(model=[1]))),
    "seconds that are no number": saved(vars(checkpoint(seconds=float("nan")))),
    "a verdict that is text": saved(vars(checkpoint(deterministic="no"))),
    "cut in half": saved(vars(checkpoint()))[:600],
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_refused_and_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(GARBAGE[kind])
    with pytest.raises(TrainingError, match="the checkpoint cannot be read") as error:
        Checkpoint.load(tmp_path)
    assert str(path) in str(error.value)
    assert "do: delete it to start this run from the beginning" in str(error.value)
    assert error.value.exit_code == 1
    assert not Path("executed").exists()


@few
@given(data=st.data())
def test_any_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject):
    folder = tmp_path_factory.getbasetemp()
    (folder / "checkpoint.pt").write_bytes(data.draw(changed_bytes(saved(vars(checkpoint())))))
    with bounded():
        try:
            assert Checkpoint.load(folder) is not None
        except TrainingError as error:
            assert "delete it" in str(error)  # noqa: PT017 - it may be fine


def due_after(seconds: float, count: int, epochs: int | None = None) -> list[int]:
    """After which of `count` epochs of so many seconds there is a checkpoint."""
    now = [100.0]
    interval = CheckpointInterval(epochs, lambda: now[0])
    due = []
    for epoch in range(1, count + 1):
        now[0] += seconds
        if interval.due(epoch):
            due.append(epoch)
    return due


@pytest.mark.parametrize("seconds", [0.25, 0.5, 4.0, 8.0, 15.0, 16.0, 29.0, 31.0, 4000.0])
def test_a_kill_costs_half_a_minute_or_an_epoch(seconds: float) -> None:
    """Whenever it comes: at most all since the last checkpoint, just before the next one."""
    due = [0, *due_after(seconds, 400)]
    lost = max(after - before for before, after in itertools.pairwise(due)) * seconds
    assert lost <= max(30.0, seconds)
    assert lost > 15.0  # and no more often than that: half a second's epochs leave one in half a minute
    assert 400 - due[-1] <= max(30.0, seconds) / seconds


def test_a_number_of_epochs_is_kept_to_whatever_they_take() -> None:
    assert due_after(0.001, 10, epochs=3) == due_after(100.0, 10, epochs=3) == [3, 6, 9]
    assert due_after(0.001, 3, epochs=1) == [1, 2, 3]
