from __future__ import annotations

import math

import pytest
import torch
from torch.optim import SGD, Optimizer
from training_pieces import HARD, LFCC, VIT, config, network, objectives

from pipeline.errors import ConfigError
from pipeline.training import build_optimizer, build_scheduler
from pipeline.training.optimisation import is_fused

UPDATES = 7
"""Per epoch."""


def optimizer(**changes: object) -> Optimizer:
    return build_optimizer(torch.nn.Linear(2, 2), objectives(network(), HARD), config(**changes))


def rates(**changes: object) -> list[float]:
    """The learning rate of every update of a run."""
    settings = config(**changes)
    chosen = optimizer(**changes)
    scheduler = build_scheduler(chosen, settings, UPDATES)
    found = []
    for update in range(settings.epochs * UPDATES):
        found.append(chosen.param_groups[0]["lr"])
        scheduler.step_update(update + 1)
    return found


def test_cosine_is_the_closed_form():
    total = 10 * UPDATES
    expected = [0.1 * 0.5 * (1 + math.cos(math.pi * t / total)) for t in range(total)]
    assert rates(schedule="cosine", epochs=10, learning_rate=0.1) == pytest.approx(expected)


def test_warmup_is_linear_from_a_hundredth_to_the_peak():
    warm = 2 * UPDATES
    expected = [0.001 + (0.1 - 0.001) * t / warm for t in range(warm)]
    found = rates(schedule="cosine", epochs=10, learning_rate=0.1, warmup_epochs=2)
    assert found[:warm] == pytest.approx(expected)
    t, total = warm, 10 * UPDATES
    assert found[warm] == pytest.approx(0.1 * 0.5 * (1 + math.cos(math.pi * t / total)))


def test_multistep_divides_by_ten_after_each_milestone():
    found = rates(schedule="multistep", epochs=10, learning_rate=0.1, milestones=(4, 7))
    expected = [0.1 * 0.1 ** ((t >= 4 * UPDATES) + (t >= 7 * UPDATES)) for t in range(10 * UPDATES)]
    assert found == pytest.approx(expected)


def test_constant_stays():
    assert rates(schedule="constant", epochs=3, learning_rate=0.1) == pytest.approx([0.1] * 3 * UPDATES)


@pytest.mark.parametrize("schedule", ["none", "plateau"])
def test_schedules_that_resume_cannot_repeat_are_refused(schedule: str):
    with pytest.raises(ConfigError, match=r"train\.schedule: is not a function of the step alone"):
        rates(schedule=schedule)


def test_unknown_schedules_are_refused():
    with pytest.raises(ConfigError, match=r"(?s)train\.schedule: is not a schedule.*expected: cosine.*got: cosinus"):
        rates(schedule="cosinus")


def test_unknown_optimisers_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"train\.optimizer: unknown name 'adamv'") as error:
        optimizer(optimizer="adamv")
    assert "did you mean 'adam" in str(error.value)


def test_sgd_is_nesterovs_with_the_momentum_and_decay_of_the_configuration():
    chosen = optimizer(optimizer="sgd", momentum=0.8, weight_decay=0.03)
    assert isinstance(chosen, SGD)
    by_decay = {group["weight_decay"]: group for group in chosen.param_groups}
    assert set(by_decay) == {0.0, 0.03}
    assert [tuple(p.shape) for p in by_decay[0.0]["params"]] == [(2,)]  # the bias has no decay
    assert [tuple(p.shape) for p in by_decay[0.03]["params"]] == [(2, 2)]
    assert all(group["nesterov"] and group["momentum"] == 0.8 for group in chosen.param_groups)


def test_an_objectives_own_parameters_learn_at_their_multiple_of_the_rate():
    student = network()
    chosen = objectives(student, HARD, {**LFCC, "learning_rate": 3.0})
    settings = config(schedule="cosine", epochs=10, learning_rate=0.1)
    built = build_optimizer(student.model, chosen, settings)
    scheduler = build_scheduler(built, settings, UPDATES)
    own = {id(parameter) for parameter in chosen.parameters()}
    groups = [group for group in built.param_groups if id(group["params"][0]) in own]
    assert len(groups) == 1
    assert {id(p) for p in groups[0]["params"]} == own
    for update in (0, 1, 20, 69):
        scheduler.step_update(update)
        assert groups[0]["lr"] == pytest.approx(3 * built.param_groups[0]["lr"])
        assert groups[0]["lr"] == pytest.approx(0.15 * (1 + math.cos(math.pi * update / 70)))


def test_objectives_without_parameters_add_no_group():
    student = network()
    assert len(build_optimizer(student.model, objectives(student, HARD), config()).param_groups) == 2


def test_layer_decay_is_a_power_of_the_distance_from_the_classifier():
    """A ViT of two blocks: classifier and last norm, block 1, block 0, embedding, by hand."""
    student = network(VIT)
    settings = config(learning_rate=0.1, layer_decay=0.5, schedule="cosine", epochs=10)
    built = build_optimizer(student.model, objectives(student, HARD), settings)
    scheduler = build_scheduler(built, settings, UPDATES)
    names = {id(parameter): name for name, parameter in student.model.named_parameters()}
    for update, factor in {0: 1.0, 35: 0.5}.items():
        scheduler.step_update(update)
        found = {names[id(p)]: group["lr"] for group in built.param_groups for p in group["params"]}
        assert len(found) == len(names)
        assert found["head.weight"] == pytest.approx(0.1 * factor)
        last = found["blocks.1.mlp.fc1.weight"]
        assert found["blocks.0.mlp.fc1.weight"] == pytest.approx(last / 2)
        assert found["patch_embed.proj.weight"] == pytest.approx(last / 4)
        assert last <= 0.1 * factor / 2


def test_layer_decay_keeps_what_has_no_weight_decay_and_the_objectives_rate():
    student = network()
    settings = config(learning_rate=0.1, layer_decay=0.5, weight_decay=0.03)
    chosen = objectives(student, HARD, {**LFCC, "learning_rate": 3.0})
    built = build_optimizer(student.model, chosen, settings)
    build_scheduler(built, settings, UPDATES)
    own = {id(parameter) for parameter in chosen.parameters()}
    for group in built.param_groups:
        if id(group["params"][0]) in own:
            assert group["lr"] == pytest.approx(0.3)
        else:
            assert {p.ndim <= 1 for p in group["params"]} == {group["weight_decay"] == 0.0}


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_one_kernel_for_all_parameters_does_what_the_loop_does(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a parameter has no gradient at first too, and where weights lie with their channels last."""
    found = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr("pipeline.training.optimisation.FUSED", ())
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5)).double()
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        built = build_optimizer(model, objectives(network(), HARD), config(optimizer=name, weight_decay=0.1))
        assert is_fused(built) == fused
        for update in range(6):
            built.zero_grad(set_to_none=True)
            for number, parameter in enumerate(model.parameters()):
                gradient = torch.randn(parameter.shape, dtype=torch.float64)
                if not number % 2 or update >= 3:
                    (parameter * gradient).sum().backward()
            built.step()
        found.append([parameter.detach().clone() for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_what_torch_has_no_such_kernel_for_is_not_fused() -> None:
    assert not is_fused(optimizer(optimizer="lamb"))
    for strange in (torch.nn.Linear(2, 2, device="meta"), torch.nn.Linear(2, 2, dtype=torch.complex64)):
        built = build_optimizer(strange, objectives(network(), HARD), config())
        assert isinstance(built, SGD)
        assert not is_fused(built)
