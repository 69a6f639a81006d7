from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.dist import correlation, relations
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def test_two_samples_by_hand():
    # Rows: (3, 2, 1)/6 against (1, 2, 3)/6 and against itself, correlations -1 and 1. Columns: 3, 1 against 1, 1
    # (constant: 0), 2, 2 (0), and 1, 3 against 3, 3 (0).
    student = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]], dtype=torch.float64).log()
    teacher = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], dtype=torch.float64).log()
    inter, intra = relations(student, teacher, 1.0)
    assert inter.item() == pytest.approx(1 - (-1 + 1) / 2, abs=1e-6)
    assert intra.item() == pytest.approx(1.0, abs=1e-6)


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (np.sqrt((x**2).sum()) * np.sqrt((y**2).sum()) + 1e-8))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_equals_the_equation_in_float64(temperature: float):
    z, t = random(2, 6, 5)
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(1, keepdims=True) for x in (t.numpy(), z.numpy()))
    inter = 1 - np.mean([pearson(p[row], q[row]) for row in range(6)])
    intra = 1 - np.mean([pearson(p[:, c], q[:, c]) for c in range(5)])
    options = {"beta": 2.0, "gamma": 0.5, "temperature": temperature}
    objective = build_objective("dist", options, SHAPES, SHAPES, Context(6, 5))
    rows = torch.arange(6)
    got = objective(Signals(z), Signals(t), Batch(rows - 9, rows, rows), 0.0)
    assert got["inter"].item() == pytest.approx(2.0 * temperature**2 * inter, rel=1e-10)
    assert got["intra"].item() == pytest.approx(0.5 * temperature**2 * intra, rel=1e-10)


def test_it_is_zero_for_equal_logits_and_for_any_line_through_the_teachers_probabilities():
    t = random(8, 5)
    assert [value.item() for value in relations(t, t, 1.0)] == pytest.approx([0, 0], abs=1e-6)
    mixed = (0.3 * t.softmax(1) + 0.7 / 5).log()  # half way to knowing nothing: a line
    assert [value.item() for value in relations(mixed, t, 1.0)] == pytest.approx([0, 0], abs=1e-6)
    assert relations(random(8, 5, seed=1), t, 1.0)[0] > 0.1


@pytest.mark.parametrize("constant", [0.0, 0.1, 0.01, 123.456])
def test_what_does_not_vary_correlates_with_nothing_and_has_a_small_gradient(constant: float):
    """Whatever rounding leaves of it when its mean is taken away; a classifier that begins at zero says such things."""
    x = torch.full((3, 100), constant, requires_grad=True)
    value = correlation(x, torch.randn(3, 100, generator=torch.Generator().manual_seed(0)), 1)
    assert value.tolist() == pytest.approx([0, 0, 0], abs=1e-2)
    value.sum().backward()
    assert x.grad is not None
    assert 0 < x.grad.abs().max() < 10
    zeros = torch.zeros(2, 4, requires_grad=True)
    sum(relations(zeros, zeros.detach(), 1.0)).backward()
    assert zeros.grad is not None
    assert zeros.grad.tolist() == [[0] * 4] * 2


def test_a_batch_of_one_has_no_relations_of_samples():
    z = random(1, 5).requires_grad_()
    intra = relations(z, random(1, 5, seed=1), 1.0)[1]
    intra.backward()
    assert intra.item() == 1
    assert z.grad is not None
    assert z.grad.abs().max() == 0


def test_gradient():
    z, t = random(2, 3, 4)
    assert torch.autograd.gradcheck(lambda s: torch.stack(relations(s, t, 2.0)), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("dist"):
        case.check_objective("dist", case.options)


def test_refuses_networks_of_different_classes():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("dist", {}, SHAPES, SignalShapes(logits=7), Context(3, 5))
