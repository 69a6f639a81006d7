from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import case
from torch import Tensor
from training_pieces import HARD, KD, VIT, Unreadable, cache, drawn, network, objectives, same, steps, whole

from pipeline.errors import DataError
from pipeline.progress import Silent
from pipeline.training import Step, Steps, loader, train
from pipeline.training.small_steps import made_at_once

CPU = torch.device("cpu")


def tensors(step: Step) -> Iterator[Tensor]:
    yield from (step.images, step.labels, step.sample, step.view)
    if step.teacher_outputs is not None:
        yield from step.teacher_outputs.decode().features.values()
        yield step.teacher_outputs.decode().logits


def equal(one: Step, other: Step) -> bool:
    pairs = zip(tensors(one), tensors(other), strict=True)
    return one.index == other.index and all(torch.equal(a, b) and a.is_contiguous() for a, b in pairs)


def test_steps_that_are_made_at_once_are_those_that_are_made_one_by_one(
    road: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any step on; those of an epoch alone go together, and as many as are small enough."""
    made: list[tuple[int, int]] = []
    together = Steps.together
    monkeypatch.setattr(Steps, "together", lambda *given: made.append(given[1:]) or together(*given))
    few: dict[str, Any] = {"batch_size": 11, "epochs": 2}  # of 48 samples: 10, 10, 10, 9 and 9 in an epoch
    mores: list[dict[str, Any]] = [{}, {"views_per_step": 2, "batch_size": 22}, {"sampling": "balanced"}]
    runs: list[Steps] = [*(steps(road, **(few | more)) for more in mores), drawn(road, **few)]
    for number, run in enumerate(runs):
        start = 3 * (number % 2)
        with case(run=number, start=start):
            got = list(loader(run, start, CPU))
            assert all(equal(*pair) for pair in zip(got, (run[i] for i in range(start, 10)), strict=True))
            assert made == [(start, 1), (start + 1, 4 - start), (5, 5)]
            made.clear()
    monkeypatch.setattr("pipeline.training.small_steps.AT_ONCE_BYTES", 10 * 3 * 8 * 8)
    assert len(list(loader(runs[0], 0, CPU))) == 10
    assert made == [(number, 1) for number in range(10)]


def test_views_whose_pixels_may_depend_on_the_batch_are_made_step_by_step(
    road: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run that was killed, and goes on from another step, would have other batches."""
    together: list[int] = []
    made = Steps.together
    monkeypatch.setattr(Steps, "together", lambda *given: together.append(given[2]) or made(*given))
    run = steps(road, batch_size=11, epochs=2)
    run.views.exact = False
    assert all(equal(*pair) for pair in zip(loader(run, 0, CPU), (run[i] for i in range(10)), strict=True))
    assert together == []


def test_a_run_ends_the_same_whatever_is_made_at_once(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for bytes_at_once in (4 * 2**20, 0):
        monkeypatch.setattr("pipeline.training.small_steps.AT_ONCE_BYTES", bytes_at_once)
        student = network(VIT)
        run = steps(road, batch_size=11, epochs=2, learning_rate=0.01)
        train(student, objectives(student, HARD, KD), run, seed=0, folder=None, progress=Silent())
        found.append(student.model.state_dict())
    assert same(*found)


def test_an_error_is_raised_in_place_of_its_step(road: Path) -> None:
    source = Unreadable(whole(cache(road)).teachers)
    few: dict[str, Any] = {"batch_size": 11, "epochs": 2}
    run = steps(road, source, **few)
    source.sample = int(steps(road, **few)[7].sample[3])
    batches = made_at_once(run, 0)
    assert [next(batches).index for _ in range(7)] == list(range(7))
    with pytest.raises(DataError) as error:
        next(batches)
    with pytest.raises(DataError) as expected:
        run[7]
    assert str(error.value) == str(expected.value)
    assert next(made_at_once(run, 8)).index == 8
    with pytest.raises(DataError):
        next(made_at_once(run, 7))
