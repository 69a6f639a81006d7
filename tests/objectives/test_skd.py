from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.methods.skd import direction_distances
from pipeline.signals import Signals, SignalShapes


def pair(batch: int = 6, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    z, t = torch.randn(2, batch, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    return z, t


def built(classes: int, **options: float) -> Objective:
    shapes = SignalShapes(logits=classes)
    return build_objective("skd", options, shapes, shapes, Context(6, classes))


def batch(rows: int) -> Batch:
    row = torch.arange(rows)
    return Batch(torch.full_like(row, -1), row, torch.zeros_like(row))


def test_two_samples_by_hand():
    # Orthogonal in the student and parallel in the teacher: D has -1 beside its diagonal, and cov is ±1/2.
    student, teacher = torch.eye(2), torch.tensor([[1.0, 1.0], [3.0, 3.0]])
    for ridge in (0.1, 0.5):
        expected = math.sqrt((0.5 + ridge) / (ridge**2 + ridge))
        assert direction_distances(student, teacher, ridge).tolist() == pytest.approx([expected] * 2, rel=1e-5)


@pytest.mark.parametrize("divide", [True, False])
def test_equals_the_equation_in_float64(divide: bool):
    z, t = pair()
    rows, classes = z.shape
    grams = []
    for x in (z.numpy(), t.numpy()):
        x = [row / np.sqrt(row @ row) for row in x]
        grams.append(np.array([[a @ b for b in x] for a in x]) / (classes if divide else 1))
    d = grams[0] - grams[1]
    mean = sum(d) / rows
    covariance = sum(np.outer(row - mean, row - mean) for row in d) / (rows - 1)
    inverse = np.linalg.inv(covariance + 0.3 * np.eye(rows))
    expected = sum(math.sqrt(row @ inverse @ row) for row in d) / rows
    got = built(classes, ridge=0.3, divide=divide)(Signals(z), Signals(t), batch(rows), 0.0)
    assert got["directions"].item() == pytest.approx(expected, rel=1e-10)


def test_lengths_of_logits_do_not_matter_and_a_large_ridge_leaves_the_euclidean_distance():
    z, t = pair()
    found = direction_distances(z * torch.rand(6, 1).add(0.5), t * 7, 0.1)
    torch.testing.assert_close(found, direction_distances(z, t, 0.1), rtol=1e-10, atol=0)
    s, u = (x / x.norm(dim=1, keepdim=True) for x in (z, t))
    lengths = (s @ s.T - u @ u.T).norm(dim=1)
    torch.testing.assert_close(direction_distances(z, t, 1e12) * 1e6, lengths, rtol=1e-9, atol=0)


def test_networks_that_agree_zero_rows_and_one_sample_have_finite_gradients():
    z, t = pair()
    z[0], t[1] = 0, 0
    for student, teacher in ((t, t), (z, t), (z[:1], t[:1]), (z[2:3], t[2:3])):
        leaf = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(direction_distances(leaf, teacher, 0.1).mean(), leaf)
        assert gradient.isfinite().all()
    assert direction_distances(t, t, 0.1).tolist() == [0] * 6
    assert direction_distances(z[2:3], t[2:3], 0.1).item() == pytest.approx(0, abs=1e-14)


def test_half_precision_is_as_exact_as_its_values():
    z, t = (x.half() for x in pair(32, 10))
    found, expected = direction_distances(z, t, 0.1), direction_distances(z.double(), t.double(), 0.1)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=0)


def test_gradient():
    z, t = pair(4, 3)
    assert torch.autograd.gradcheck(lambda s: direction_distances(s, t, 0.2), (z.requires_grad_(),))


@pytest.mark.parametrize("name", ["skd", "skd_torchdistill"])
def test_golden_values_of_the_reference(name: str):
    for case in golden(name):
        case.check_objective("skd", case.options)


def test_refuses_networks_of_different_classes():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("skd", {}, SignalShapes(logits=5), SignalShapes(logits=7), Context(3, 5))
