from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective, kl_divergence
from pipeline.objectives.methods.lskd import standardised
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    classes, rows = SignalShapes(logits=student.shape[1]), torch.arange(len(student))
    objective = build_objective(
        "lskd", {"temperature": temperature}, classes, classes, Context(len(student), student.shape[1])
    )
    return objective(Signals(student), Signals(teacher), Batch(rows, rows, rows), 0.0)["kl"]


def test_two_classes_by_hand():
    # (5, 1) has mean 3 and sample deviation 2 √2: it becomes (1, -1) / √2; (1, 2) becomes (-1, 1) / √2.
    student, teacher = torch.tensor([[5.0, 1.0]]), torch.tensor([[1.0, 2.0]])
    assert standardised(student)[0].tolist() == pytest.approx([0.5**0.5, -(0.5**0.5)], rel=1e-6)
    p = 1 / (1 + math.exp(math.sqrt(2) / 2.0))
    expected = 4 * (p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p))
    assert loss(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
def test_equals_the_equation_in_float64(temperature: float):
    z, t = random(2, 6, 5)
    total = 0.0
    for row in range(6):
        p, q = (x[row] - x[row].mean() for x in (t.numpy(), z.numpy()))
        p, q = (x / (np.std(x, ddof=1) + 1e-7) / temperature for x in (p, q))
        p, q = (np.exp(x) / np.exp(x).sum() for x in (p, q))
        total += (p * np.log(p / q)).sum()
    assert loss(z, t, temperature).item() == pytest.approx(temperature**2 * total / 6, rel=1e-10)


def test_size_and_offset_of_the_logits_do_not_count():
    z, t = random(2, 6, 5)
    torch.testing.assert_close(loss(7.0 * z - 3.0, 0.5 * t + 2.0, 2.0), loss(z, t, 2.0), rtol=1e-6, atol=0)
    assert loss(7.0 * t - 3.0, t, 2.0).item() == pytest.approx(0, abs=1e-12)


def test_of_standardised_logits_it_is_kd():
    z, t = (standardised(random(6, 5, seed=seed)) for seed in (0, 1))
    torch.testing.assert_close(loss(z, t, 2.0), kl_divergence(z, t, 2.0).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("value", [0.0, 1e4])
def test_equal_logits_have_a_small_gradient(value: float):
    """As a student has whose classifier begins at zero: divided by EPSILON the gradient would be 10⁶ times as large."""
    z = torch.full((2, 5), value, requires_grad=True)
    loss(z, random(2, 5).float(), 2.0).backward()
    assert z.grad is not None
    assert 0 < z.grad.abs().max() < 10


def test_gradient():
    z, t = random(2, 3, 4)
    assert torch.autograd.gradcheck(lambda s: loss(s, t, 2.0), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("lskd"):
        case.check_objective("lskd", case.options)


def test_refuses_different_classes_and_a_single_class():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("lskd", {}, SHAPES, SignalShapes(logits=7), Context(3, 5))
    one = SignalShapes(logits=1)
    with pytest.raises(ConfigError, match="two classes or more"):
        build_objective("lskd", {}, one, one, Context(3, 1))
