from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective, kl_divergence
from pipeline.objectives.methods.dkd import decoupled
from pipeline.signals import Signals, SignalShapes


def test_three_classes_by_hand():
    # Target 1/2 in the teacher and 1/4 in the student; of the rest the teacher gives 1:1, the student 1:2.
    teacher, student = torch.tensor([[2.0, 1.0, 1.0]]).log(), torch.tensor([[1.0, 1.0, 2.0]]).log()
    target, others = decoupled(student, teacher, torch.tensor([0]), 1.0)
    assert target.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75), rel=1e-5)
    assert others.item() == pytest.approx(0.5 * math.log(0.5 * 3) + 0.5 * math.log(0.5 * 1.5), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_equals_the_equation_in_float64(temperature: float):
    random = np.random.default_rng(0)
    z, t = random.normal(size=(2, 6, 5)) * 3
    labels = random.integers(5, size=6)
    target = others = 0.0
    for row in range(6):
        p, q = (np.exp(x[row] / temperature) / np.exp(x[row] / temperature).sum() for x in (t, z))
        y = labels[row]
        target += p[y] * np.log(p[y] / q[y]) + (1 - p[y]) * np.log((1 - p[y]) / (1 - q[y]))
        p, q = (np.delete(x, y) / np.delete(x, y).sum() for x in (p, q))
        others += (p * np.log(p / q)).sum()
    options = {"alpha": 0.7, "beta": 3.0, "temperature": temperature}
    shapes, rows = SignalShapes(logits=5), torch.arange(6)
    objective = build_objective("dkd", options, shapes, shapes, Context(6, 5, rows % 5))
    batch = Batch(torch.from_numpy(labels), rows, torch.zeros_like(rows))
    got = objective(Signals(torch.tensor(z)), Signals(torch.tensor(t)), batch, 0.0)
    assert got["target"].item() == pytest.approx(0.7 * temperature**2 * target / 6, rel=1e-10)
    assert got["others"].item() == pytest.approx(3.0 * temperature**2 * others / 6, rel=1e-10)


def test_with_the_teachers_doubt_as_weight_it_is_kd():
    # Equation 5: KD = TCKD + (1 - p_t,y) NCKD.
    z, t = torch.randn(2, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 4
    labels, temperature = torch.arange(8), 3.0
    target, others = decoupled(z, t, labels, temperature)
    doubt = 1 - (t / temperature).softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(target + doubt * others, kl_divergence(z, t, temperature), rtol=1e-10, atol=0)


def test_two_classes_have_no_others():
    z, t = torch.randn(2, 4, 2, generator=torch.Generator().manual_seed(0))
    assert decoupled(z, t, torch.tensor([0, 1, 1, 0]), 4.0)[1].tolist() == [0, 0, 0, 0]


def test_gradient():
    z, t = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda s: torch.stack(decoupled(s, t, labels, 2.0)), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("dkd"):
        case.check_objective("dkd", case.options)


def test_refuses_samples_without_label_and_networks_of_different_classes():
    shapes = SignalShapes(logits=5)
    with pytest.raises(ConfigError, match="label for every sample"):
        build_objective("dkd", {}, shapes, shapes, Context(3, 5, torch.tensor([0, -1, 2])))
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("dkd", {}, shapes, SignalShapes(logits=7), Context(3, 5, torch.tensor([0, 1, 2])))
