from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods import rkd
from pipeline.objectives.methods.rkd import angle_loss, distance_loss
from pipeline.signals import Signals, SignalShapes


def pair(batch: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(batch, 4, generator=generator, dtype=torch.float64)
    return student, 3 + torch.randn(batch, 9, generator=generator, dtype=torch.float64)


def huber(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def oracle(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """The equations, one pair and one triple at a time."""
    n = len(x)

    def relative(f: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in f] for a in f])
        return found / found[found > 0].mean()

    def cosine(f: NDArray[np.float64], i: int, j: int, k: int) -> float:
        one, other = f[j] - f[i], f[k] - f[i]
        lengths = np.sqrt(one @ one) * np.sqrt(other @ other)
        return float(one @ other / lengths) if lengths > 0 else 0.0

    u, v = relative(x), relative(y)
    distance = sum(huber(u[i, j] - v[i, j]) for i in range(n) for j in range(n)) / n**2
    indices = np.ndindex(n, n, n)
    return distance, sum(huber(cosine(x, *ijk) - cosine(y, *ijk)) for ijk in indices) / n**3


def test_equals_the_equations_in_float64():
    student, teacher = pair()
    distance, angle = oracle(student.numpy(), teacher.numpy())
    assert distance_loss(student, teacher).item() == pytest.approx(distance, rel=1e-10)
    assert angle_loss(student, teacher).item() == pytest.approx(angle, rel=1e-10)


def test_three_points_by_hand():
    # On a line at 0, 1, 2 and in a right angle: distances (1, 1, 2) / (4/3) and (1, 1, √2) / ((2 + √2)/3).
    line, corner = torch.tensor([[0.0], [1.0], [2.0]]).double(), torch.tensor([[0.0, 1], [0, 0], [1, 0]]).double()
    near, far = 3 / 4 - 3 / (2 + math.sqrt(2)), 6 / 4 - 3 * math.sqrt(2) / (2 + math.sqrt(2))
    assert distance_loss(line, corner).item() == pytest.approx((4 * huber(near) + 2 * huber(far)) / 9, rel=1e-9)
    # Angles at the ends: 0° against 45°; in the middle: 180° against 90°. Each is counted twice.
    expected = (4 * huber(1 - math.sqrt(0.5)) + 2 * huber(1.0)) / 27
    assert angle_loss(line, corner).item() == pytest.approx(expected, rel=1e-9)


def test_a_moved_turned_and_scaled_copy_is_the_same():
    student, _ = pair()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    copy = 5 * student @ rotation + 100
    assert distance_loss(student, copy).item() == pytest.approx(0, abs=1e-20)
    assert angle_loss(student, copy).item() == pytest.approx(0, abs=1e-20)


def test_golden_values_of_the_reference():
    for case in golden("rkd"):
        case.check_objective("rkd", case.options)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    found = []
    for chunk in (10**9, 2 * 7**2, 1):
        monkeypatch.setattr(rkd, "CHUNK", chunk)
        student, teacher = pair()
        loss = angle_loss(student.requires_grad_(), teacher)
        found.append((loss.detach(), torch.autograd.grad(loss, student)[0]))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=1e-14)


def test_gradient():
    student, teacher = pair(4)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: distance_loss(s, teacher), (student,))
    assert torch.autograd.gradcheck(lambda s: angle_loss(s, teacher), (student,))


@pytest.mark.parametrize("rows", ["zero", "twins"])
def test_samples_that_are_one_have_finite_gradients(rows: str):
    student, teacher = (x.float() for x in pair())
    student = torch.zeros_like(student) if rows == "zero" else student[[0, 0, 0, 3, 4, 5, 6]]
    student.requires_grad_()
    (50 * angle_loss(student, teacher) + distance_loss(student, teacher)).backward()
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1e4


def test_terms_are_weighted_and_left_out():
    student, teacher = pair()
    shapes, rows = (SignalShapes(3, x.shape[1]) for x in (student, teacher)), torch.arange(7)
    said = (Signals(torch.zeros(7, 3), x) for x in (student, teacher))
    objective = build_objective("rkd", {"distance_weight": 2.0, "angle_weight": 0.0}, *shapes, Context(7, 3))
    terms = objective(*said, Batch(rows, rows, rows), 0.0)
    assert set(terms) == {"distance"}
    torch.testing.assert_close(terms["distance"], 2 * distance_loss(student, teacher))


def test_refuses_networks_without_embeddings():
    with pytest.raises(ConfigError, match="student's embedding"):
        build_objective("rkd", {}, SignalShapes(3), SignalShapes(3, 4), Context(3, 3))
