from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.nkd import normalised
from pipeline.signals import Signals, SignalShapes


def test_three_classes_by_hand():
    teacher, student = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
    target, others = normalised(student, teacher, torch.tensor([0]), 1.0)
    assert target.item() == pytest.approx(-0.5 * math.log(0.25), rel=1e-5)
    assert others.item() == pytest.approx(-0.5 * math.log(1 / 3) - 0.5 * math.log(2 / 3), rel=1e-5)


def test_equals_the_equation_in_float64():
    random = np.random.default_rng(0)
    z, t = random.normal(size=(2, 6, 5)) * 3
    labels, gamma, temperature = random.integers(5, size=6), 3.5, 3.0
    target = others = 0.0
    for row, y in enumerate(labels):
        p, q = (np.exp(x[row]) / np.exp(x[row]).sum() for x in (t, z))
        target -= p[y] * np.log(q[y])
        p, q = (np.exp(np.delete(x[row], y) / temperature) for x in (t, z))
        others -= (p / p.sum() * np.log(q / q.sum())).sum()
    shapes, rows = SignalShapes(logits=5), torch.arange(6)
    options = {"gamma": gamma, "temperature": temperature}
    objective = build_objective("nkd", options, shapes, shapes, Context(6, 5, rows % 5))
    batch = Batch(torch.from_numpy(labels), rows, torch.zeros_like(rows))
    got = objective(Signals(torch.tensor(z)), Signals(torch.tensor(t)), batch, 0.0)
    assert got["target"].item() == pytest.approx(target / 6, rel=1e-10)
    assert got["others"].item() == pytest.approx(gamma * temperature**2 * others / 6, rel=1e-10)


def test_the_target_is_taken_out_of_the_others():
    # Copies of the authors' early code leave it in: there the target's logit changes the others' part.
    z, t = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 5, 2, 3])
    raised = z.clone()
    raised[torch.arange(4), labels] += 7.0
    torch.testing.assert_close(normalised(z, t, labels, 2.0)[1], normalised(raised, t, labels, 2.0)[1])


def test_others_are_least_where_they_agree():
    t = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = t.clone().requires_grad_()
    normalised(z, t, torch.tensor([0, 1, 2, 3]), 2.0)[1].sum().backward()
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-12


def test_gradient():
    z, t = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda s: torch.stack(normalised(s, t, labels, 2.0)), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("nkd"):
        case.check_objective("nkd", case.options)


def test_refuses_samples_without_label():
    shapes = SignalShapes(logits=5)
    with pytest.raises(ConfigError, match="label for every sample"):
        build_objective("nkd", {}, shapes, shapes, Context(3, 5, None))
