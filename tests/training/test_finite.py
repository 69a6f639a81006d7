from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import case
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from training_pieces import HARD, KD, LFCC, SMALL, VIT, Poisoned, cache, network, objectives, steps, whole

from pipeline.errors import TrainingError
from pipeline.objectives import Terms
from pipeline.progress import Silent
from pipeline.training import Checkpoint, train
from pipeline.training.finite import FiniteLoss
from pipeline.training.trainer import Trainer


def stopped(
    road: Path, source: Any, kind: Any, entries: tuple[dict[str, Any], ...], *, deferred: bool, **settings: Any
) -> tuple[str, list[Tensor], list[Tensor]]:
    """What a run says that stops, the parameters that it leaves, and the state of its optimiser."""
    student = network(kind)
    chosen = objectives(student, *entries)
    trainer = Trainer(student, chosen, steps(road, source, **settings), 0, None)
    trainer.finite = FiniteLoss(trainer.steps, trainer.device, trainer.optimizer, deferred=deferred)

    def all_steps() -> None:
        for index in range(len(trainer.steps)):
            trainer.update(trainer.steps[index])
            if (index + 1) % trainer.steps.steps_per_epoch == 0:
                trainer.finite.require()

    with pytest.raises(TrainingError) as error:
        all_steps()
    parameters = [*student.parameters(), *chosen.parameters()]
    state = [value for each in trainer.optimizer.state.values() for _, value in sorted(each.items())]
    return str(error.value), [each.detach().clone() for each in parameters], [torch.as_tensor(each) for each in state]


ADAM = {"optimizer": "adamw", "learning_rate": 1e-3}
CASES: list[tuple[int, Any, tuple[dict[str, Any], ...], dict[str, Any]]] = [
    (0, SMALL, (HARD, KD, LFCC), {}),
    (1, VIT, (HARD, KD), {**ADAM, "clip_gradient": 0.1}),
    (2, SMALL, (HARD, KD), {"views_per_step": 2, "batch_size": 32}),
    (4, SMALL, (HARD, {**KD, "schedule": {"off_after": 0.5}}), {"ema": 0.7}),
    (4, VIT, (HARD, KD), {"batch_size": 8, "accumulate": 2, "optimizer": "momentum"}),
]


@pytest.mark.parametrize("number", range(len(CASES)))
def test_a_device_that_is_asked_once_in_an_epoch_stops_as_one_that_is_asked_at_every_step(
    road: Path, number: int
) -> None:
    """Not a number in the last rows of a step of three epochs of three: the same words, weights and momentum."""
    index, kind, entries, settings = CASES[number]
    good = steps(road, **settings)[index]
    source = Poisoned(whole(cache(road)), int(good.sample[-1]), None if index < 3 else int(good.view[-1]))
    given = road, source, kind, entries
    now, later = (stopped(*given, deferred=deferred, **settings) for deferred in (False, True))
    assert later[0] == now[0]
    assert f"not finite at step {index}; the weights" in now[0]
    assert "where: term kd/kl" in now[0]
    for one, other in zip(later[1], now[1], strict=True):
        assert torch.equal(one, other)
    if index:  # before the first step, Adam has no state yet
        assert len(now[2]) == len(later[2]) > 10
        for one, other in zip(later[2], now[2], strict=True):
            assert torch.equal(one, other)


def test_nothing_is_saved_of_an_epoch_that_went_wrong(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the second epoch: the checkpoint is of the first, and it was not scored again."""
    wrong, scored = steps(road)[4], list[float]()
    source = Poisoned(whole(cache(road)), int(wrong.sample[0]), int(wrong.view[0]))
    student = network()
    given: Any = student, objectives(student, HARD, KD), steps(road, source, ema=0.5)
    how: Any = {"seed": 0, "folder": tmp_path, "progress": Silent()}
    monkeypatch.setattr("pipeline.training.trainer.FiniteLoss", partial(FiniteLoss, deferred=True))
    with pytest.raises(TrainingError, match="at step 4; the weights before it"):
        train(*given, **how, score=lambda network: scored.append(0.5) or 0.5)
    found = Checkpoint.load(tmp_path)
    assert found is not None
    assert found.epoch == len(scored) == 1
    assert all(value.isfinite().all() for state in (found.model, found.ema or {}) for value in state.values())


def test_weights_that_are_not_finite_are_neither_scored_nor_saved(road: Path, tmp_path: Path) -> None:
    """The loss of the only step of an epoch is finite, and its gradient is not."""
    student, scored = network(), list[float]()
    name, weight = next(iter(student.model.named_parameters()))
    weight.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    run = steps(road, batch_size=10_000, clip_gradient=1.0)
    assert run.steps_per_epoch == 1
    given: Any = student, objectives(student, HARD), run
    with pytest.raises(TrainingError, match=r"weights are not finite after epoch 1, since a gradient was not") as error:
        train(*given, seed=0, folder=tmp_path, progress=Silent(), score=lambda network: scored.append(0.5) or 0.5)
    assert name in str(error.value)
    assert Checkpoint.load(tmp_path) is None
    assert not scored


def mark(road: Path, **settings: Any) -> FiniteLoss:
    student = network()
    trainer = Trainer(student, objectives(student, HARD), steps(road, **settings), 0, None)
    return FiniteLoss(trainer.steps, trainer.device, trainer.optimizer, deferred=True)


def terms(total: float, **each: float) -> Terms:
    return Terms(torch.tensor(total), {name: torch.tensor(value) for name, value in each.items()})


def test_the_first_of_several_is_told_of_whatever_comes_later(road: Path) -> None:
    nan = float("nan")
    cases: list[tuple[list[Terms], int, str]] = [
        ([terms(1, a=1, b=1), terms(nan, a=1, b=nan), terms(nan, a=nan), terms(1, a=1, b=1)], 1, "term b\n"),
        ([terms(nan, a=nan, b=nan), terms(nan, b=nan, c=nan)], 0, "term a, b\n"),
        ([terms(1, b=1), terms(1, a=1), terms(float("inf"), a=1, b=2), terms(nan, a=nan)], 2, "the weighted sum\n"),
        ([terms(1), terms(nan), terms(nan, a=nan)], 1, "the weighted sum\n"),
    ]
    for values, first, words in cases:
        with case(values=values):
            seen = mark(road)
            for _ in range(3):  # epochs before
                for index in range(3):
                    seen.see(terms(1, a=1), index, 0)
                seen.require()
            for index, value in enumerate(values):
                seen.see(value, index, 0)
            with pytest.raises(TrainingError, match=f"not finite at step {first};") as error:
                seen.require()
            assert words in str(error.value)


def test_long_epochs_are_read_in_between(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.training.finite.BATCHES_UNREAD", 4)
    seen = mark(road)
    seen.see(terms(1, a=1), 0, 0)
    seen.see(terms(float("nan"), a=1), 1, 0)
    seen.see(terms(1, a=1), 2, 0)
    with pytest.raises(TrainingError, match="at step 1;"):
        seen.see(terms(1, a=1), 3, 0)


def test_only_a_gpu_with_a_fused_optimiser_is_asked_later(road: Path) -> None:
    """And no value is asked of it before: one that only claims to be there has none."""
    student = network()
    trainer = Trainer(student, objectives(student, HARD), steps(road), 0, None)
    assert not trainer.finite.deferred
    assert trainer.optimizer.found_inf is None  # type: ignore[attr-defined]
    with FakeTensorMode():
        late = FiniteLoss(trainer.steps, torch.device("cuda"), trainer.optimizer)
        assert late.deferred
        for index in range(3):
            late.see(Terms(torch.ones((), device="cuda"), {"a": torch.ones((), device="cuda")}), index, 0)
        with pytest.raises(DataDependentOutputException):
            late.require()
    assert trainer.optimizer.found_inf is late.mark  # type: ignore[attr-defined]
    for group in trainer.optimizer.param_groups:
        group["fused"] = None
    with FakeTensorMode():
        assert not FiniteLoss(trainer.steps, torch.device("cuda"), trainer.optimizer).deferred
    assert trainer.optimizer.found_inf is None  # type: ignore[attr-defined]
