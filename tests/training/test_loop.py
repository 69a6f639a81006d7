from __future__ import annotations

import random
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from active_devices import ActiveDevices
from cases import case
from torch import Tensor, nn
from training_pieces import (
    HARD,
    KD,
    LFCC,
    SMALL,
    VIT,
    Interrupting,
    Poisoned,
    cache,
    config,
    drawn,
    network,
    objectives,
    same,
    steps,
    whole,
)

from pipeline.errors import TrainingError
from pipeline.models import Network
from pipeline.objectives import ObjectiveSet
from pipeline.progress import Progress, Silent
from pipeline.training import Checkpoint, Steps, TrainingResult, train
from pipeline.training.trainer import Trainer

ADAM = {"optimizer": "adamw", "learning_rate": 1e-3}


def run(
    road: Path,
    folder: Path | None = None,
    *,
    kind: Any = SMALL,
    entries: tuple[dict[str, Any], ...] = (HARD, KD),
    seed: int = 0,
    progress: Progress | None = None,
    score: Any = None,
    options: dict[str, Any] | None = None,
    **changes: Any,
) -> TrainingResult:
    """A run of three epochs of three steps from the cache of `road`."""
    student = network(kind, **(options or {}))
    return train(
        student,
        objectives(student, *entries),
        steps(road, seed=seed, **changes),
        seed=seed,
        folder=folder,
        progress=progress or Silent(),
        score=score,
    )


def weights(result: TrainingResult) -> dict[str, Tensor]:
    return result.network.model.state_dict()


def stripped(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Without what is measured with a clock."""
    return [{name: value for name, value in row.items() if "second" not in name} for row in history]


CASES: dict[str, dict[str, Any]] = {
    "sgd and projectors": {"entries": (HARD, LFCC), "warmup_epochs": 1, "clip_gradient": 1.0},
    "averaged weights": {"ema": 0.7},
    "two views of each sample": {
        "entries": (HARD, {"name": "mlld", "temperatures": [2, 4]}),
        "views_per_step": 2,
        "batch_size": 32,
    },
    "batches added up": {"accumulate": 2, "batch_size": 8, "clip_gradient": 1.0},
    "the best epoch's weights": {"patience": 3},
    "the best of averaged weights": {"patience": 3, "ema": 0.7},
    # Dropped paths are random numbers that the network draws itself.
    "adamw and random numbers": {"kind": VIT, "options": {"drop_path_rate": 0.3}, "entries": (HARD,), **ADAM},
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(road: Path, tmp_path: Path, name: str):
    """After so many steps, with a checkpoint every so many epochs: of four such moments, two for each kind of run."""
    whole = run(road, score=size_of, **CASES[name])
    moments = [(2, 1), (7, 1), (3, 1), (8, 2)]
    for after, every in moments[:2] if list(CASES).index(name) % 2 else moments[2:]:
        with case(after=after, every=every):
            interrupted_and_resumed(road, tmp_path / f"{after}", whole, after, **CASES[name], checkpoint_epochs=every)


def size_of(network: Network) -> float:
    """A score."""
    return float(sum(p.detach().abs().sum() for p in network.model.parameters()))


def interrupted_and_resumed(road: Path, folder: Path, whole: TrainingResult, after: int, **settings: Any) -> None:
    folder.mkdir()
    every, scored = settings["checkpoint_epochs"], []
    with pytest.raises(KeyboardInterrupt):
        run(road, folder, progress=Interrupting(after), score=size_of, **settings)
    found = Checkpoint.load(folder)
    finished = after // 3
    assert (found.epoch if found else 0) == finished - finished % every
    torch.rand(7)  # what happened in between does not matter
    resumed = run(road, folder, score=lambda n: scored.append(1) or size_of(n), **settings)
    assert len(scored) == 3 - (found.epoch if found else 0)
    assert same(weights(resumed), weights(whole))
    assert stripped(resumed.history.rows) == stripped(whole.history.rows)
    assert [row["epoch"] for row in resumed.history.rows] == [1, 2, 3]


def test_a_finished_run_that_is_asked_again_only_returns(road: Path, tmp_path: Path):
    first = run(road, tmp_path)
    again = run(road, tmp_path, progress=Interrupting(0))
    assert same(weights(first), weights(again))
    assert again.seconds == first.seconds


def test_a_checkpoint_of_a_run_whose_optimiser_was_not_fused_goes_on_as_it_began(road: Path, tmp_path: Path):
    """Those of older versions were not. The last bits differ, and not more."""
    settings: dict[str, Any] = {"kind": VIT, "epochs": 2, **ADAM}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.training.optimisation.FUSED", ())
        plain = run(road, **settings)
        with pytest.raises(KeyboardInterrupt):
            run(road, tmp_path, progress=Interrupting(4), **settings)
    assert same(weights(run(road, tmp_path, **settings)), weights(plain))
    fused = weights(run(road, **settings))
    assert not same(fused, weights(plain))
    for name, value in weights(plain).items():
        torch.testing.assert_close(fused[name], value, rtol=1e-3, atol=1e-4)


def test_projectors_are_part_of_what_is_resumed(road: Path, tmp_path: Path):
    student = network()
    chosen = objectives(student, HARD, LFCC)
    train(student, chosen, steps(road), seed=0, folder=tmp_path, progress=Silent())
    found = Checkpoint.load(tmp_path)
    assert found is not None
    assert same(found.objectives, chosen.state_dict())
    fresh = objectives(network(), HARD, LFCC).state_dict()
    assert not same(found.objectives, fresh)


def test_deterministic_under_a_seed_and_different_under_another(road: Path):
    assert same(weights(run(road)), weights(run(road)))
    assert not same(weights(run(road)), weights(run(road, seed=1)))


def test_random_numbers_of_the_network_depend_on_seed_and_step(road: Path):
    student = network(VIT, drop_path_rate=0.5)
    trainer = Trainer(student, objectives(student, HARD), drawn(road, **ADAM), 3, None)
    start = {name: value.clone() for name, value in student.state_dict().items()}
    step = trainer.steps[0]
    values = []
    for _ in range(2):
        student.load_state_dict(start)
        torch.rand(3)
        values.append(trainer.update(step).total.item())
    step.index = 1
    student.load_state_dict(start)
    assert values[0] == values[1] != trainer.update(step).total.item()


def test_global_random_generators_are_left_alone(road: Path, tmp_path: Path):
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002
    run(road, tmp_path, kind=VIT, options={"drop_path_rate": 0.3}, resident_gigabytes=0, workers=0, **ADAM)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()


def test_a_loss_that_is_not_finite_stops_the_run_before_the_update(road: Path, tmp_path: Path):
    good = steps(road)
    sample = int(good[2].sample[5])
    poisoned = steps(road, Poisoned(whole(cache(road)), sample))
    student = network()
    trainer = Trainer(student, objectives(student, HARD, KD), poisoned, 0, None)
    for index in range(2):
        trainer.update(poisoned[index])
    before = {name: value.clone() for name, value in student.model.state_dict().items()}
    momentum = [state["momentum_buffer"].clone() for state in trainer.optimizer.state.values()]
    with pytest.raises(TrainingError, match="the loss is not finite at step 2") as error:
        trainer.update(poisoned[2])
    parameters = dict(student.model.named_parameters())
    assert all(torch.equal(before[name], value) for name, value in parameters.items())
    after = [state["momentum_buffer"] for state in trainer.optimizer.state.values()]
    assert all(torch.equal(one, other) for one, other in zip(momentum, after, strict=True))
    text = str(error.value)
    assert "where: term kd/kl\n" in text
    data = good.samples
    named = [data.split.ids[int(data.positions[int(row)])] for row in good[2].sample[:8]]
    assert f"got: samples {', '.join(named)}, ..." in text
    assert "do: lower train.learning_rate" in text

    with pytest.raises(TrainingError, match="step 2"):
        train(network(), objectives(network(), HARD, KD), poisoned, seed=0, folder=tmp_path, progress=Silent())
    assert Checkpoint.load(tmp_path) is None


def strided(module: nn.Module) -> list[tuple[Any, int]]:
    """Stride, and count of hooks, of every convolution."""
    convolutions = (each for each in module.modules() if isinstance(each, nn.Conv2d))
    return [(each.stride, len(each._forward_pre_hooks)) for each in convolutions]


@pytest.mark.parametrize("changes", [{}, {"ema": 0.5}], ids=["last weights", "averaged weights"])
def test_strides_are_the_users_own_again_after_training(road: Path, changes: dict[str, Any]):
    """After a failure too. In training, convolutions of few channels make none."""
    student = network((SMALL[0], 8, {"widths": [4, 4, 8]}))
    chosen, before, within = objectives(student, HARD), strided(student), list[bool]()

    def score(scored: Network) -> float:
        within.append(strided(student) == before)
        if len(within) == 3:
            raise ArithmeticError("the third score")
        return 0.5

    def trained() -> TrainingResult:
        run_steps = drawn(road, epochs=2, **changes)
        return train(student, chosen, run_steps, seed=0, folder=None, progress=Silent(), score=score)  # type: ignore[arg-type]

    result = trained()
    assert strided(student) == strided(result.network) == before
    with pytest.raises(ArithmeticError):
        trained()
    assert strided(student) == before
    assert within == [False] * 3


def test_a_sum_that_overflows_is_named_where_no_term_does(road: Path):
    student = network()
    heavy = objectives(student, {**HARD, "weight": 3e38}, {**KD, "weight": 3e38})
    trainer = Trainer(student, heavy, steps(road), 0, None)
    with pytest.raises(TrainingError, match="term the weighted sum"):
        trainer.update(trainer.steps[0])


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_averaged_weights_are_the_recursion(road: Path, decay: float):
    student = network()
    trainer = Trainer(student, objectives(student, HARD), drawn(road, ema=decay), 0, None)
    expected: dict[str, Tensor] = {}
    for index in range(6):
        trainer.update(trainer.steps[index])
        for name, value in student.model.state_dict().items():
            if index < 2:  # timm starts to average with the third update
                expected[name] = value.double()
            else:
                expected[name] = decay * expected[name] + (1 - decay) * value.double()
    result = trainer.result()
    assert result is not student
    for name, value in result.model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not same(result.model.state_dict(), student.model.state_dict())
    images = trainer.steps[0].images
    assert result(images).logits.shape == student(images).logits.shape


def test_averaged_weights_are_what_is_scored_and_returned(road: Path):
    scored: list[Network] = []
    settings: dict[str, Any] = {"ema": 0.9, "entries": (HARD,)}
    result = run(road, score=lambda n: scored.append(n) or 0.5, **settings)
    assert same(scored[-1].model.state_dict(), weights(result))
    plain = run(road, entries=(HARD,))
    assert not same(weights(plain), weights(result))


def test_history_has_a_column_for_every_term_and_the_loss_is_their_weighted_sum(road: Path, tmp_path: Path):
    result = run(road, tmp_path, entries=(HARD, KD, LFCC), score=lambda network: 0.25)
    terms = ["hard-label/cross-entropy", "kd/kl", "lfcc/contrast"]
    columns = ["epoch", "learning_rate", "loss", *terms, "images_per_second", "seconds", "holdout_top1"]
    rows = result.history.rows
    assert all(list(row) == columns for row in rows)
    for row in rows:
        expected = 0.1 * row[terms[0]] + 0.9 * row[terms[1]] + row[terms[2]]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)
        assert row["holdout_top1"] == 0.25
    assert rows[0]["seconds"] < rows[1]["seconds"] < rows[2]["seconds"] == pytest.approx(result.seconds)
    assert result.images_per_second == pytest.approx(3 * 48 / result.seconds)
    lines = result.history.csv().splitlines()
    assert lines[0] == ",".join(columns)
    assert len(lines) == 4
    assert lines[2].startswith("2,")


def test_images_per_second_are_those_that_the_network_sees(road: Path):
    result = run(road, views_per_step=2)
    assert result.images_per_second == pytest.approx(3 * 48 * 2 / result.seconds)
    assert [row["epoch"] for row in result.history.rows] == [1, 2, 3]


def test_the_mean_of_an_epoch_is_over_samples_not_batches(road: Path):
    # Batches of 24 + 24 and of 10, 10, 10, 9, 9: with a network that never changes, the mean is the same.
    still = {"learning_rate": 1e-30, "weight_decay": 0.0, "epochs": 1, "entries": (KD,), "kind": VIT}
    one = run(road, **still, batch_size=24).history.rows[0]
    other = run(road, **still, batch_size=10).history.rows[0]
    assert one["kd/kl"] == pytest.approx(other["kd/kl"], rel=1e-5)


def test_an_objective_that_is_off_by_schedule_costs_nothing(road: Path):
    student = network()
    chosen = objectives(student, HARD, {**LFCC, "schedule": {"off_after": 0.5}}, {**KD, "weight": 0.0})
    calls: dict[str, list[int]] = {"hard-label": [], "lfcc": [], "kd": []}
    for entry, member in zip(chosen.entries, chosen.members, strict=True):
        member.register_forward_hook(lambda m, a, o, name=entry.label: calls[name].append(1))
    result = train(student, chosen, steps(road, epochs=4), seed=0, folder=None, progress=Silent())
    assert {name: len(found) for name, found in calls.items()} == {"hard-label": 12, "lfcc": 6, "kd": 0}
    assert ["lfcc/contrast" in row for row in result.history.rows] == [True, True, False, False]
    assert all("kd/kl" not in row for row in result.history.rows)
    lines = [line.split(",") for line in result.history.csv().splitlines()]
    column = lines[0].index("lfcc/contrast")
    assert [bool(line[column]) for line in lines[1:]] == [True, True, False, False]


def test_objectives_prepare_before_the_student_computes(road: Path):
    """A device then has nothing of this step to wait for. What is off does not; and so for every batch of a step."""
    student, seen = network(), list[str]()
    chosen = objectives(student, HARD, {**LFCC, "schedule": {"on_after": 0.5}})
    for entry, member in zip(chosen.entries, chosen.members, strict=True):
        member.prepare = lambda batch, progress, name=entry.label: seen.append(f"{name} {len(batch.on_cpu().sample)}")
    student.register_forward_hook(lambda module, given, said: seen.append("student"))
    trainer = Trainer(student, chosen, steps(road, batch_size=8, accumulate=2), 0, None)
    for index in (0, 5):
        trainer.update(trainer.steps[index])
    first, second = ["hard-label 8", "student"], ["hard-label 8", "lfcc 8", "student"]
    assert seen == [*first, *first, *second, *second]


def test_an_objective_that_begins_late_costs_nothing_before(road: Path):
    """REFILLED's recipe: hard labels in the second half only."""
    student = network()
    chosen = objectives(student, {**HARD, "schedule": {"on_after": 0.5}}, KD)
    result = train(student, chosen, steps(road, epochs=4), seed=0, folder=None, progress=Silent())
    assert ["hard-label/cross-entropy" in row for row in result.history.rows] == [False, False, True, True]
    for row in result.history.rows:
        late = row.get("hard-label/cross-entropy", 0.0) * chosen.entries[0].weight
        assert row["loss"] == pytest.approx(late + row["kd/kl"] * chosen.entries[1].weight, rel=1e-5)


def test_a_term_that_is_switched_off_within_an_epoch_keeps_its_mean(road: Path):
    # The contrast is about 2.5 in every step; averaged over the steps that it was not part of, it would drop.
    entries = (HARD, {**LFCC, "schedule": {"off_after": 0.5}})
    rows = run(road, entries=entries, epochs=1, learning_rate=1e-6).history.rows
    full = run(road, entries=(HARD, LFCC), epochs=1, learning_rate=1e-6).history.rows
    assert rows[0]["lfcc/contrast"] == pytest.approx(full[0]["lfcc/contrast"], rel=0.1)


def test_a_set_without_a_part_that_is_on_leaves_the_network_alone(road: Path):
    student = network()
    before = {name: value.clone() for name, value in student.model.named_parameters()}
    off = objectives(student, {**HARD, "weight": 0.0})
    train(student, off, steps(road, epochs=1, weight_decay=0.0), seed=0, folder=None, progress=Silent())
    assert all(torch.equal(before[name], value) for name, value in student.model.named_parameters())


def test_gradients_are_clipped_over_network_and_objectives_together(road: Path):
    student = network()
    trainer = Trainer(student, objectives(student, HARD, LFCC), steps(road, clip_gradient=1e-3), 0, None)
    trainer.update(trainer.steps[0])
    every = [*student.model.parameters(), *trainer.objectives.parameters()]
    norm = torch.stack([p.grad.norm() for p in every if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_learning_happens(road: Path):
    rows = run(road, epochs=20, entries=({**HARD, "weight": 1.0},), learning_rate=0.1).history.rows
    assert rows[-1]["hard-label/cross-entropy"] < 0.5 * rows[0]["hard-label/cross-entropy"]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_precision_is_what_was_asked_for_and_weights_stay_float32(road: Path, precision: str):
    result = run(road, precision=precision, epochs=1, entries=(HARD, KD, LFCC))
    assert result.precision == precision
    assert {p.dtype for p in result.network.model.parameters()} == {torch.float32}
    assert result.device == "cpu"


def test_progress_tells_of_steps_done_before(road: Path, tmp_path: Path):
    class Heard(Silent):
        begun: tuple[Any, ...] = ()
        notes: list[str]

        def __init__(self) -> None:
            self.notes = []

        def begin(self, what: str, total: int, unit: str, done: int = 0) -> None:
            self.begun = (what, total, unit, done)

        def advance(self, amount: int, note: str = "") -> None:
            self.notes += [note] * bool(note)

    with pytest.raises(KeyboardInterrupt):
        run(road, tmp_path, progress=Interrupting(4))
    heard = Heard()
    result = run(road, tmp_path, progress=heard, score=lambda network: 0.5)
    assert heard.begun == ("training", 9, "steps", 3)
    loss = result.history.rows[1]["loss"]
    assert heard.notes[0].startswith(f"epoch 2/3 loss {loss:.4f}")
    assert heard.notes[0].endswith(", holdout 50.00%")


def test_a_checkpoint_of_another_network_is_refused(road: Path, tmp_path: Path):
    run(road, tmp_path, epochs=1)
    others: list[dict[str, Any]] = [{"kind": VIT}, {"entries": (HARD, LFCC)}, {"ema": 0.9}]
    for other in others:
        with pytest.raises(TrainingError, match="the checkpoint is of another run") as error:
            run(road, tmp_path, epochs=1, **other)
        assert str(tmp_path / "checkpoint.pt") in str(error.value)


def test_the_trainer_reads_the_configuration_of_its_steps(road: Path):
    student = network()
    chosen: ObjectiveSet = objectives(student, HARD)
    run_steps: Steps = drawn(road, learning_rate=0.125)
    trainer = Trainer(student, chosen, run_steps, 0, None)
    assert trainer.config == config(learning_rate=0.125)
    assert trainer.optimizer.param_groups[0]["lr"] == 0.125


PLAIN = {"optimizer": "momentum", "kind": VIT, "entries": (HARD, KD), "learning_rate": 0.1}
"""Without batch normalisation, and by an optimiser that does not divide by the size of the gradient."""


@pytest.mark.parametrize("more", [{}, {"clip_gradient": 0.05}, {"views_per_step": 2}, {"sampling": "balanced"}])
def test_batches_added_up_are_one_large_batch(road: Path, more: dict[str, Any]):
    large = run(road, **PLAIN, **more, batch_size=24, epochs=2)
    for accumulate in (2, 3):
        with case(accumulate=accumulate):
            small = run(road, **PLAIN, **more, batch_size=24 // accumulate, accumulate=accumulate, epochs=2)
            for name, value in weights(large).items():
                torch.testing.assert_close(weights(small)[name], value, rtol=1e-6, atol=1e-6)
            for one, other in zip(stripped(small.history.rows), stripped(large.history.rows), strict=True):
                assert one == pytest.approx(other, rel=1e-4)


def test_progress_and_schedule_count_steps_of_the_optimiser(road: Path):
    seen: list[int] = []
    student = network(VIT)
    trainer = Trainer(student, objectives(student, HARD), drawn(road, batch_size=5, accumulate=3, **ADAM), 0, None)
    assert len(trainer.steps) == 3 * 4  # of 48 samples, 15 at once
    student.register_forward_hook(lambda module, given, said: seen.append(len(given[0])))
    trainer.update(trainer.steps[0])
    assert seen == [4, 4, 4]
    assert trainer.optimizer.state_dict()["state"][0]["step"] == 1


def test_views_of_a_sample_stay_together_in_parts(road: Path):
    step = steps(road, views_per_step=2, batch_size=14)[0]
    parts = step.parts(3, 2)
    assert [len(part.sample) for part in parts] == [6, 4, 4]
    assert all(torch.equal(part.sample[::2], part.sample[1::2]) for part in parts)
    assert torch.equal(torch.cat([part.images for part in parts]), step.images)
    said = torch.cat([part.teacher_outputs.decode().logits for part in parts if part.teacher_outputs])
    assert step.teacher_outputs is not None
    assert torch.equal(said, step.teacher_outputs.decode().logits)
    assert len(step.parts(99, 2)) == 7


def scores(*values: float) -> Any:
    """A holdout on which the epochs are as good as this, from the first on."""
    left = list(values)
    return lambda network: left.pop(0)


def test_patience_stops_and_keeps_the_best_epoch(road: Path, tmp_path: Path):
    states: list[dict[str, Tensor]] = []

    def score(network: Network) -> float:
        states.append({name: value.clone() for name, value in network.model.state_dict().items()})
        return [0.2, 0.5, 0.4, 0.5, 0.9][len(states) - 1]

    result = run(road, tmp_path, score=score, epochs=9, patience=2)
    assert [row["holdout_top1"] for row in result.history.rows] == [0.2, 0.5, 0.4, 0.5]
    assert result.best == 2
    assert same(weights(result), states[1])
    again = run(road, tmp_path, score=scores(), epochs=9, patience=2)  # killed before it was published
    assert same(weights(again), states[1])
    assert again.best == 2


def test_without_patience_the_last_epoch_is_kept(road: Path):
    result = run(road, score=scores(0.9, 0.1, 0.1))
    assert result.best is None
    assert same(weights(result), weights(run(road)))


def test_patience_that_is_not_used_up_keeps_the_best_epoch_none_the_less(road: Path):
    assert run(road, score=scores(0.1, 0.9, 0.3), patience=9).best == 2
    first = run(road, score=scores(0.9, 0.1, 0.1), patience=9)
    assert not same(weights(first), weights(run(road)))


def test_the_learning_rate_of_a_row_is_the_classifiers(road: Path):
    settings: dict[str, Any] = {"schedule": "constant", "layer_decay": 0.5, "learning_rate": 0.01}
    rows = run(road, kind=VIT, entries=(HARD,), **settings).history.rows
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01] * 3)


def test_a_device_that_does_not_repeat_itself_is_told_of(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the run, and by what goes on from its checkpoint; training is inside of `reproducible`."""
    active = ActiveDevices(monkeypatch, "pipeline.training.loop")
    scored: list[torch.device] = []
    assert run(road, score=lambda network: scored.extend(active.now) or 0.5, epochs=1).deterministic
    assert scored == [torch.device("cpu")]
    monkeypatch.setattr("pipeline.training.loop.chance_operations", lambda device: nullcontext(["scatter_add"]))
    with pytest.raises(KeyboardInterrupt):
        run(road, tmp_path, progress=Interrupting(4))
    monkeypatch.undo()
    resumed = run(road, tmp_path)
    assert resumed.history.rows[0]["epoch"] == 1
    assert not resumed.deterministic


def test_without_a_number_of_epochs_checkpoints_go_by_time(road: Path, tmp_path: Path) -> None:
    """Three short epochs have one, at the end; and what is resumed ends as what was not."""
    written: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "save", lambda checkpoint, folder: written.append(checkpoint.epoch))
        patch.setattr("pipeline.training.checkpoint.SECONDS_AT_RISK", 1e9)  # however busy the machine is
        run(road, tmp_path, checkpoint_epochs=None)
    assert written == [3]
