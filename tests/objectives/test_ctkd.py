from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective, kl_divergence
from pipeline.objectives.methods.ctkd import CTKD, Options, reversed_gradient, strength
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)
ROWS = torch.arange(6)
BATCH = Batch(ROWS, ROWS, ROWS)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def test_the_first_temperature_and_two_classes_by_hand():
    objective = CTKD(Options())
    first = 1 + 20 / (1 + math.exp(-1))
    assert objective.temperature().item() == pytest.approx(first, rel=1e-6)
    # At T = 2, teacher (0, 2 log 3) says 1 : 3 and student (0, 0) says 1 : 1.
    teacher, student = torch.tensor([[0.0, 2 * math.log(3)]]), torch.tensor([[0.0, 0.0]])
    expected = 4 * (0.25 * math.log(0.5) + 0.75 * math.log(1.5))
    assert kl_divergence(student, teacher, torch.tensor(2.0)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("theta", [-2.0, 1.0])
def test_equals_the_equation_in_float64(theta: float):
    z, t = random(2, 6, 5)
    objective = build_objective("ctkd", {"lowest": 2.0, "span": 5.0}, SHAPES, SHAPES, Context(6, 5)).double()
    assert isinstance(objective, CTKD)
    torch.nn.init.constant_(objective.theta, theta)
    temperature, total = 2 + 5 / (1 + np.exp(-theta)), 0.0
    for row in range(6):
        p, q = (np.exp(x[row] / temperature) / np.exp(x[row] / temperature).sum() for x in (t.numpy(), z.numpy()))
        total += (p * np.log(p / q)).sum()
    got = objective(Signals(z), Signals(t), BATCH, 0.5)["kl"]
    assert got.item() == pytest.approx(temperature**2 * total / 6, rel=1e-10)


def test_the_temperatures_gradient_is_turned_round_as_far_as_the_ramp_has_come():
    z, t = random(2, 6, 5)
    objective = build_objective("ctkd", {"ramp": 0.1}, SHAPES, SHAPES, Context(6, 5)).double()
    assert isinstance(objective, CTKD)

    def plain(theta: float) -> float:
        return float(kl_divergence(z, t, 1 + 20 / (1 + math.exp(-theta))).mean())

    slope = (plain(1 + 1e-4) - plain(1 - 1e-4)) / 2e-4
    assert abs(slope) > 1e-3
    for progress, factor in ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.9, 1.0)):
        objective.zero_grad()
        objective(Signals(z), Signals(t), BATCH, progress)["kl"].backward()
        assert objective.theta.grad is not None
        assert objective.theta.grad.item() == pytest.approx(-factor * slope, rel=1e-5, abs=1e-12)


def test_the_ramp_is_the_codes_over_ten_epochs():
    # The reference's value after epoch e of 10 is (cos(π e / 10) + 1) / 2 - 1.
    for epoch in range(11):
        assert strength(epoch / 240, 10 / 240) == pytest.approx(1 - (math.cos(math.pi * epoch / 10) + 1) / 2, abs=1e-12)
    assert strength(0.0, 0.0) == 1


def test_the_student_feels_kd_at_the_temperature_of_the_moment():
    z, t = random(6, 5).requires_grad_(), random(6, 5, seed=1)
    objective = build_objective("ctkd", {}, SHAPES, SHAPES, Context(6, 5)).double()
    assert isinstance(objective, CTKD)
    (learned,) = torch.autograd.grad(objective(Signals(z), Signals(t), BATCH, 1.0)["kl"], z)
    temperature = objective.temperature().item()
    (fixed,) = torch.autograd.grad(kl_divergence(z, t, temperature).mean(), z)
    torch.testing.assert_close(learned, fixed)


def test_the_temperature_moves_to_where_the_student_is_worse():
    z, t = random(6, 5), random(6, 5, seed=1)
    objective = build_objective("ctkd", {}, SHAPES, SHAPES, Context(6, 5)).double()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    values = []
    for _ in range(20):
        value = objective(Signals(z), Signals(t), BATCH, 1.0)["kl"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values == sorted(values)
    assert values[-1] > values[0]


def test_gradient():
    z, t = random(2, 3, 4)
    temperature = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s, T: kl_divergence(s, t, T), (z.requires_grad_(), temperature))
    x = torch.tensor(3.0, requires_grad=True)
    reversed_gradient(x, 0.7).backward()
    assert x.grad is not None
    assert x.grad.item() == pytest.approx(-0.7)


def test_refuses_networks_of_different_classes():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("ctkd", {}, SHAPES, SignalShapes(logits=7), Context(3, 5))
