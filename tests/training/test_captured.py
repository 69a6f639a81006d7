"""Recorded steps, with what stands in for a GPU's records: the work is done again, and its result laid in place."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from contracts.claimed import moved, on_cuda
from contracts.step_costs import Launches
from torch import Tensor
from training_pieces import HARD, KD, LFCC, SMALL, VIT, Poisoned, cache, config, network, objectives, same, steps, whole

from pipeline.commands.side_by_side import trained_in_turn
from pipeline.errors import ConfigError, TrainingError
from pipeline.objectives import ObjectiveSet, Terms
from pipeline.stepwise import Stepwise
from pipeline.training import Steps
from pipeline.training.captured import UNRECORDED_STEPS, CapturedSteps
from pipeline.training.change import change_weights, rounds_rates
from pipeline.training.finite import FiniteLoss
from pipeline.training.gpu_settings import refuse_prepared, refuse_without_gpu
from pipeline.training.optimisation import is_fused
from pipeline.training.step_tables import rate_table, weight_table
from pipeline.training.trainer import Trainer

CPU = torch.device("cpu")
FEW: dict[str, Any] = {"batch_size": 11, "epochs": 4, "learning_rate": 0.01}  # 10, 10, 10, 9 and 9 in an epoch
SCHEDULED = [HARD, KD | {"schedule": {"warmup": 0.6}}, LFCC | {"schedule": {"off_after": 0.5, "decay": "cosine"}}]


class Again:
    """Stands in for a GPU's records."""

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self.parameters: list[torch.nn.Parameter] = []
        self.records = 0

    def state(self) -> list[Tensor]:
        """All that a step changes."""
        assert self.trainer is not None
        made, finite = self.trainer, self.trainer.finite
        modules = [made.network, made.objectives, *([] if made.ema is None else [made.ema])]
        of_modules = [each for module in modules for each in (*module.parameters(), *module.buffers())]
        of_optimizer = [each for state in made.optimizer.state.values() for each in state.values()]
        return [*of_modules, *of_optimizer, finite.mark, finite._first, finite._seen, *finite._finite.values()]

    def apart(self, work: Callable[[], Terms]) -> Terms:
        """Do it."""
        return work()

    def recorded(self, work: Callable[[], Terms]) -> tuple[Terms, Callable[[], None]]:
        """Do it without a trace, and look that it neither waits for a device nor makes a gradient that nobody has."""
        before = [(each, each.detach().clone()) for each in self.state()]
        launches = Launches()
        with launches, torch.random.fork_rng(devices=[]):
            result = work()
        assert launches.waits == []
        assert len(self.state()) == len(before), "what a record makes would be made anew each time"
        for each, value in before:
            each.detach().copy_(value)
        places = [each.grad for each in self.parameters]
        self.records += 1

        def replay() -> None:
            for each in self.parameters:
                each.grad = None
            again = work()
            result.total.copy_(again.total)
            assert list(result.terms) == list(again.terms)
            for term, value in again.terms.items():
                result.terms[term].copy_(value)
            for place, each in zip(places, self.parameters, strict=True):
                assert (place is None) == (each.grad is None)
                if place is not None and each.grad is not None:
                    place.copy_(each.grad)

        return result, replay


def trainer(
    run: Steps, *entries: dict[str, Any], captured: bool, kind: Any = SMALL, whole: bool = True, **options: Any
) -> Trainer:
    """whole: a GPU is asked later whether the loss was finite, so the whole step can be recorded."""
    student = network(kind, **options)
    made = Trainer(student, objectives(student, *entries), run, 0, None)
    if whole:
        made.finite = FiniteLoss(run, CPU, made.optimizer, deferred=True)
    if captured:
        recorder = Again()
        recorder.trainer = made
        made.captured = CapturedSteps(made, recorder)
        recorder.parameters = made.captured.parameters
    return made


def trained(made: Trainer) -> list[tuple[Tensor, dict[str, Tensor]]]:
    found = []
    for index in range(len(made.steps)):
        value = made.update(made.steps[index])
        found.append((value.total.clone(), {name: each.clone() for name, each in value.terms.items()}))
    return found


def states(made: Trainer) -> dict[str, Tensor]:
    named = {"network": made.network.state_dict(), "objectives": made.objectives.state_dict()}
    return {f"{of}.{name}": value for of, state in named.items() for name, value in state.items()}


RECORDED: list[tuple[Any, dict[str, Any], int]] = [
    (SMALL, {"optimizer": "sgd", "clip_gradient": 1.0, "ema": 0.9}, 3),
    (VIT, {"optimizer": "adamw", "clip_gradient": 1.0, "ema": 0.9, "layer_decay": 0.7}, 2),
    (SMALL, {"optimizer": "lion", "clip_gradient": 1.0, "ema": 0.9}, 4),
]
"""Networks, settings, and how many records there are: for two sizes, before and after an objective's end; where the
average is recorded too, the larger size comes only once between its beginning and that end."""


@pytest.mark.parametrize("number", range(len(RECORDED)))
def test_recorded_steps_have_the_bits_of_eager_ones(road: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With schedules of objectives and rates, an objective that ends, two sizes of batches, random depth, a clipped
    gradient and an average. Rates are those of a GPU; the last optimiser is not fused, so its steps are not recorded.
    """
    kind, changes, records = RECORDED[number]
    whole = changes["optimizer"] != "lion"
    monkeypatch.setattr("pipeline.training.captured.UNRECORDED_STEPS", 1)
    monkeypatch.setattr("pipeline.training.change.rounds_rates", lambda device, optimizer: is_fused(optimizer))
    settings = FEW | {"epochs": 2, "warmup_epochs": 1} | changes
    options, entries = dict[str, Any](), SCHEDULED
    if kind is VIT:
        options, entries = {"drop_path_rate": 0.3}, SCHEDULED[:2]
    given = {"kind": kind, "whole": whole, **options}
    runs = [trainer(steps(road, **settings), *entries, captured=on, **given) for on in (False, True)]
    values = [trained(each) for each in runs]
    for (one, terms), (other, same_terms) in zip(*values, strict=True):
        assert torch.equal(one, other)
        assert same(terms, same_terms)
    assert same(*(states(each) for each in runs))
    assert all(each.ema is not None for each in runs)
    assert same(*(each.ema.module.state_dict() for each in runs if each.ema is not None))
    eager, captured = ([*flat(each.optimizer.state_dict())] for each in runs)
    assert [type(each) for each in eager] == [type(each) for each in captured], "a checkpoint is of both"
    for one, other in zip(eager, captured, strict=True):
        assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
    assert runs[1].captured is not None
    assert runs[1].captured.whole == whole
    assert isinstance(runs[1].captured.recorder, Again)
    assert runs[1].captured.recorder.records == records


def flat(given: Any) -> Iterator[Any]:
    """The leaves of a state."""
    if isinstance(given, dict | list):
        for each in given.values() if isinstance(given, dict) else given:
            yield from flat(each)
    else:
        yield given


def test_recorded_steps_of_students_that_take_turns_are_those_of_each_alone(
    road: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Side by side, of which two draw random numbers of their own."""
    monkeypatch.setattr("pipeline.training.captured.UNRECORDED_STEPS", 1)
    students: list[dict[str, Any]] = [
        {"kind": VIT, "drop_path_rate": 0.3},
        {"kind": SMALL},
        {"kind": VIT, "drop_path_rate": 0.5},
    ]

    def made(number: int) -> Trainer:
        return trainer(steps(road, seed=number, **FEW), HARD, KD, captured=True, **students[number])

    def by_steps(number: int, kept: dict[int, Trainer]) -> Stepwise[int]:
        run = kept[number] = made(number)
        for index in range(len(run.steps)):
            run.update(run.steps[index])
            yield
        return number

    kept = dict[int, Trainer]()
    assert len(list(trained_in_turn(3, lambda number: by_steps(number, kept), 3, CPU))) == 3
    for number, run in kept.items():
        alone = made(number)
        trained(alone)
        assert same(states(run), states(alone))
        assert run.captured is not None
        assert isinstance(run.captured.recorder, Again)
        assert run.captured.recorder.records >= 2


def test_rates_of_64_bits_are_others_than_those_of_a_gpu(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above would see steps that round them differently."""
    found = []
    for rounded in (False, True):
        monkeypatch.setattr("pipeline.training.change.rounds_rates", lambda *given, rounded=rounded: rounded)
        made = trainer(steps(road, optimizer="adamw", learning_rate=1e-3, weight_decay=0.1), HARD, captured=False)
        trained(made)
        assert isinstance(made.optimizer.param_groups[0]["lr"], float)
        found.append(states(made))
    assert not same(*found)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)
    for device, fused, expected in (("cuda", True, True), ("cpu", True, False), ("cuda", False, False)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], fused=fused)
        assert rounds_rates(torch.device(device), optimizer) == expected


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_torch_takes_the_optimiser_on_a_gpu(
    road: Path, optimizer: str, recording: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it believes that there is one, it neither refuses to record the step nor warns of one without a record."""
    made = trainer(steps(road, optimizer=optimizer), HARD, captured=False)
    step = made.steps[0]
    made.loss(step, 0.0).total.backward()  # type: ignore[no-untyped-call]
    stream = SimpleNamespace(is_capturing=lambda: recording)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "current_stream", lambda: stream)
    before = [dict(group) for group in made.optimizer.param_groups]
    change_weights(made, 0, torch.full((len(before),), 0.01).unbind())
    for group, old in zip(made.optimizer.param_groups, before, strict=True):
        assert group["lr"] == old["lr"]
        assert group.get("capturable") == old.get("capturable")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_what_changes_weights_copies_nothing_from_a_gpu_and_waits_for_nothing(road: Path, optimizer: str) -> None:
    """On tensors that claim to be on one: the look at the loss, clipping, the optimiser and the average."""
    made = trainer(steps(road, optimizer=optimizer, clip_gradient=1.0, ema=0.9), HARD, captured=False)
    made.update(made.steps[0])
    made.loss(made.steps[1], 0.5).total.backward()  # type: ignore[no-untyped-call]
    with on_cuda() as devices:
        groups = [
            {**group, "params": [with_gradient(each) for each in group["params"]]}
            for group in made.optimizer.param_groups
        ]
        copy = type(made.optimizer)(groups)
        places = [each for group in groups for each in group["params"]]
        for place, values in zip(places, made.optimizer.state.values(), strict=True):
            copy.state[place].update({name: moved(each) for name, each in values.items()})
        assert made.ema is not None
        moved(made.ema.module)
        moved(made.student)
        made.optimizer = copy
        made.finite = FiniteLoss(made.steps, torch.device("cuda"), copy)
        devices.copies = 0
        made.finite.look(Terms(torch.ones((), device="cuda"), {"a": torch.ones((), device="cuda")}))
        change_weights(made, 3, torch.full((len(groups),), 0.01, device="cuda").unbind())
    assert devices.copies == 0


def with_gradient(parameter: Tensor) -> torch.nn.Parameter:
    """On a GPU, as is claimed, with its gradient."""
    found = torch.nn.Parameter(moved(parameter))
    found.grad = moved(parameter.grad)
    return found


def test_weights_of_a_table_are_those_of_the_schedules(road: Path) -> None:
    run, student = steps(road, **FEW), network()
    chosen = objectives(student, *SCHEDULED)
    table = weight_table(chosen, run, CPU)
    values = torch.linspace(0.1, 3, 50)
    for index in (0, 4, 5, 11, 19, 3):
        expected = list(chosen.weights(index / len(run)).values())
        row = table.row(index)
        assert row.tolist() == torch.tensor(expected, dtype=torch.float32).tolist()
        assert table.here(index) == expected
        for factor, weight in zip(row, expected, strict=True):
            assert torch.equal(factor * values, weight * values)


def test_rates_of_a_table_are_those_of_the_schedule(road: Path) -> None:
    """Of every group; the optimiser keeps its own."""
    run = steps(road, **FEW, warmup_epochs=1, layer_decay=0.5, schedule="cosine")
    made = trainer(run, HARD, captured=False, kind=VIT)
    table = rate_table(made.scheduler, made.optimizer, run, CPU)
    for index in range(len(run)):
        expected = [group["lr"] for group in made.optimizer.param_groups]
        assert table.here(index) == expected
        assert len(set(expected)) > 2
        assert table.row(index).tolist() == torch.tensor(expected, dtype=torch.float32).tolist()
        assert [group["lr"] for group in made.optimizer.param_groups] == expected
        made.update(run[index])


def test_a_loss_that_is_not_finite_is_told_as_without_records(road: Path) -> None:
    """In a step that is recorded, and read later."""
    source = whole(cache(road))
    settings = FEW | {"epochs": 1, "batch_size": 12}
    sample = int(steps(road, **settings)[3].sample[5])
    messages, weights = [], []
    for captured in (False, True):
        run = steps(road, Poisoned(source, sample), **settings)
        made = trainer(run, HARD, KD, captured=captured)
        made.finite = FiniteLoss(run, CPU, made.optimizer, deferred=True)
        for index in range(4):
            made.update(run[index])
        with pytest.raises(TrainingError, match="at step 3;") as error:
            made.finite.require()
        messages.append(str(error.value))
        weights.append(dict(made.network.named_parameters()))
    assert messages[0] == messages[1]
    assert same(*weights)


def after_warm_up(made: Trainer) -> None:
    for index in range(UNRECORDED_STEPS + 1):
        made.update(made.steps[index])


def test_what_no_record_can_have_is_refused(road: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An objective that asks for the progress; one that sets an attribute."""
    run = steps(road, **FEW)
    with pytest.raises(TrainingError, match="computes with the number of the step, or with the progress") as error:
        after_warm_up(trainer(run, HARD, {"name": "ctkd"}, captured=True))
    assert "train.capture: false" in str(error.value)
    made = trainer(run, HARD, captured=True)
    member: Any = made.objectives.members[0]
    forward = type(member).forward
    counted = iter(range(1000, 2000))

    def counting(self: Any, *given: Any) -> Any:
        self.steps_seen = next(counted)
        return forward(self, *given)

    monkeypatch.setattr(type(member), "forward", counting)
    with pytest.raises(TrainingError, match="sets an attribute of a module") as error:
        after_warm_up(made)
    assert "steps_seen" in str(error.value)


@pytest.mark.parametrize("draws", [random.random, lambda: np.random.rand(1)])  # noqa: NPY002
def test_what_draws_on_the_host_is_refused(
    road: Path, monkeypatch: pytest.MonkeyPatch, draws: Callable[[], Any]
) -> None:
    made = trainer(steps(road, **FEW), HARD, captured=True)
    made.network.register_forward_pre_hook(lambda module, inputs: draws() and None)
    with pytest.raises(TrainingError, match="draws random numbers on the host"):
        after_warm_up(made)


def test_what_spoilt_a_record_is_told_and_not_that_its_end_failed(road: Path) -> None:
    made = trainer(steps(road, **FEW), HARD, captured=True)

    def fails(work: Callable[[], Terms]) -> Any:
        try:
            raise RuntimeError("operation not permitted when stream is capturing")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    assert made.captured is not None
    made.captured.recorder.recorded = fails  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="got: operation not permitted when stream is capturing"):
        after_warm_up(made)


def test_a_record_that_fails_says_how_to_go_on(road: Path) -> None:
    made = trainer(steps(road, **FEW), HARD, captured=True)

    def fails(work: Callable[[], Terms]) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    assert made.captured is not None
    made.captured.recorder.recorded = fails  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="could not be recorded") as error:
        after_warm_up(made)
    assert "not permitted when stream is capturing" in str(error.value)
    assert "train.capture: false" in str(error.value)


def test_a_cpu_refuses_to_record_and_to_compile(road: Path) -> None:
    for key, what in (("capture", "records steps on a GPU"), ("compile", "compiles networks for a GPU")):
        run = steps(road, **{key: True})
        with pytest.raises(ConfigError, match=f"train.{key}: {what}") as error:
            trainer(run, HARD, captured=False)
        assert "got: cpu" in str(error.value)
    with pytest.raises(ConfigError, match="teacher_training") as error:
        refuse_without_gpu(config(capture=True, compile=True, accumulate=2), "teacher_training")
    assert len(error.value.problems) == 3
    refuse_without_gpu(config())


def test_objectives_that_the_host_prepares_are_refused(road: Path) -> None:
    student = network()
    with pytest.raises(ConfigError, match="prepares every step of some objectives") as error:
        refuse_prepared(objectives(student, HARD, {"name": "mlld"}))
    assert "got: mlld" in str(error.value)
    every: ObjectiveSet = objectives(student, *SCHEDULED)
    refuse_prepared(every)


def test_only_what_changes_the_bits_is_in_the_identity() -> None:
    assert "compile" not in config().identity()
    assert config(compile=True).identity() == {**config().identity(), "compile": True}
    assert config(capture=True).identity() == config().identity()


@pytest.mark.long
@pytest.mark.parametrize("kind", [SMALL, VIT], ids=["ResNet", "ViT"])
def test_a_compiled_network_trains_and_is_saved_as_itself(
    road: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """By a backend that makes no kernels: the same numbers. It is a graph for each of two sizes, and none is broken."""
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr("pipeline.training.trainer.refuse_without_gpu", lambda config: None)
    monkeypatch.setattr("pipeline.training.trainer.torch.compile", partial(torch.compile, backend=backend))
    settings = FEW | {"epochs": 1}
    runs = []
    for on in (False, True):
        torch._dynamo.reset()  # type: ignore[no-untyped-call]
        runs.append(trainer(steps(road, compile=on, **settings), HARD, KD, LFCC, captured=False, kind=kind))
        trained(runs[-1])
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    one, other = (states(each) for each in runs)
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert len(graphs) == 2
