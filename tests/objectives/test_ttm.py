from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective, kl_divergence
from pipeline.objectives.methods.ttm import transformed
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def test_two_classes_by_hand():
    # (0.8, 0.2) to the power 1/2 is 2 : 1; the student says 1 : 1.
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.0, 0.0]])
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert transformed(student, teacher, 0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("power", [0.1, 0.5, 2.0])
def test_equals_the_equation_in_float64(power: float):
    z, t = random(2, 6, 5)
    total = 0.0
    for row in range(6):
        p, q = (np.exp(x[row]) / np.exp(x[row]).sum() for x in (t.numpy(), z.numpy()))
        p = p**power / (p**power).sum()
        total += (p * np.log(p / q)).sum()
    objective = build_objective("ttm", {"power": power}, SHAPES, SHAPES, Context(6, 5))
    rows = torch.arange(6)
    got = objective(Signals(z), Signals(t), Batch(rows, rows, rows), 0.0)["kl"]
    assert got.item() == pytest.approx(total / 6, rel=1e-10)


def test_with_power_one_it_is_kd_at_temperature_one():
    z, t = random(2, 6, 5)
    torch.testing.assert_close(transformed(z, t, 1.0), kl_divergence(z, t, 1.0))


def test_it_is_kd_of_a_student_whose_logits_are_multiplied_by_the_temperature():
    z, t = random(2, 6, 5)
    torch.testing.assert_close(transformed(z, t, 0.25), kl_divergence(4 * z, t, 4.0) / 16)


def test_gradient():
    z, t = random(2, 3, 4)
    assert torch.autograd.gradcheck(lambda s: transformed(s, t, 0.3), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("ttm"):
        case.check_objective("ttm", case.options)


def test_refuses_networks_of_different_classes_and_powers_that_are_none():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("ttm", {}, SHAPES, SignalShapes(logits=7), Context(3, 5))
    with pytest.raises(ConfigError, match="power"):
        build_objective("ttm", {"power": 0}, SHAPES, SHAPES, Context(3, 5))
