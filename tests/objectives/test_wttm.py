from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.ttm import transformed
from pipeline.objectives.methods.wttm import doubt
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def loss(student: torch.Tensor, teacher: torch.Tensor, power: float) -> torch.Tensor:
    classes, rows = SignalShapes(logits=student.shape[1]), torch.arange(len(student))
    objective = build_objective("wttm", {"power": power}, classes, classes, Context(len(student), student.shape[1]))
    return objective(Signals(student), Signals(teacher), Batch(rows, rows, rows), 0.0)["kl"]


def test_two_classes_by_hand():
    # (0.8, 0.2) to the power 1/2 is 2 : 1, together 3 / √5; the student says 1 : 1.
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[0.0, 0.0]])
    expected = 3 / math.sqrt(5) * (2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3))
    assert loss(student, teacher, 0.5).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("power", [0.1, 0.5, 2.0])
def test_equals_the_equation_in_float64(power: float):
    z, t = random(2, 6, 5)
    total = 0.0
    for row in range(6):
        p, q = (np.exp(x[row]) / np.exp(x[row]).sum() for x in (t.numpy(), z.numpy()))
        weight = (p**power).sum()
        p = p**power / weight
        total += weight * (p * np.log(p / q)).sum()
    assert loss(z, t, power).item() == pytest.approx(total / 6, rel=1e-10)


def test_weights_lie_between_certainty_and_ignorance():
    certain, ignorant = torch.tensor([[1e4, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert doubt(certain, 0.2).item() == 1
    assert doubt(ignorant, 0.2).item() == pytest.approx(4**0.8)
    between = doubt(random(50, 4), 0.2)
    assert between.min() >= 1
    assert between.max() <= 4**0.8


def test_with_equal_doubt_everywhere_it_is_ttm_times_that_doubt():
    z, t = random(6, 5), random(1, 5, seed=1).expand(6, 5)
    torch.testing.assert_close(loss(z, t, 0.3), doubt(t[0], 0.3) * transformed(z, t, 0.3).mean())


def test_gradient():
    z, t = random(2, 3, 4)
    assert torch.autograd.gradcheck(lambda s: loss(s, t, 0.3), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("wttm"):
        case.check_objective("wttm", case.options)


def test_refuses_networks_of_different_classes():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("wttm", {}, SHAPES, SignalShapes(logits=7), Context(3, 5))
