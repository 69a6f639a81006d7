from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Context, build_objective
from pipeline.objectives.methods.pkt import pkt_loss, resemblance
from pipeline.signals import SignalShapes


def pair(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(batch, 4, generator=generator, dtype=torch.float64)
    return student, torch.randn(batch, 9, generator=generator, dtype=torch.float64)


def test_equals_the_equation_in_float64():
    student, teacher = pair()
    n, total = len(student), 0.0
    p = []
    for f in (student.numpy(), teacher.numpy()):
        lengths = [np.sqrt(x @ x) + 1e-7 for x in f]
        alike = np.array([[1 + f[i] @ f[j] / lengths[i] / lengths[j] for j in range(n)] for i in range(n)])
        p.append([row / row.sum() for row in alike])
    for i in range(n):
        for j in range(n):
            total += p[1][i][j] * math.log((p[1][i][j] + 1e-7) / (p[0][i][j] + 1e-7))
    assert pkt_loss(student, teacher).item() == pytest.approx(total / n**2, rel=1e-9)


def test_two_samples_by_hand():
    # Parallel in the teacher: (1/2, 1/2) each; orthogonal in the student: (2/3, 1/3).
    teacher, student = torch.tensor([[1.0], [3.0]]).double(), torch.eye(2).double()
    expected = 2 * (0.5 * math.log(0.5 * 3 / 2) + 0.5 * math.log(0.5 * 3)) / 4
    assert pkt_loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_turned_and_scaled_copies_are_the_same_and_others_are_not():
    student, teacher = pair()
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    assert pkt_loss(student, 5 * student @ rotation).item() == pytest.approx(0, abs=1e-14)
    assert pkt_loss(student, teacher) > 1e-4


def test_golden_values_of_the_reference():
    for case in golden("pkt"):
        case.check_objective("pkt", case.options)


def test_float32_keeps_the_digits_of_nearly_equal_networks():
    # Summands cancel to a thousandth: written as in the paper, the value is off by 14 % in float32.
    generator = torch.Generator().manual_seed(0)
    teacher = torch.rand(128, 16, generator=generator, dtype=torch.float64)
    student = teacher + 1e-3 * torch.randn(128, 16, generator=generator, dtype=torch.float64)
    exact = pkt_loss(student, teacher).item()
    assert pkt_loss(student.float(), teacher.float()).item() == pytest.approx(exact, rel=1e-3)


def test_gradient():
    student, teacher = pair(3)
    assert torch.autograd.gradcheck(lambda s: pkt_loss(s, teacher) * 9, (student.requires_grad_(),))


def test_embeddings_of_nothing_resemble_all():
    torch.testing.assert_close(resemblance(torch.zeros(4, 3)), torch.full((4, 4), 0.25))
    student = torch.zeros(4, 3, requires_grad=True)
    pkt_loss(student, pair(4)[1].float()).backward()
    assert torch.isfinite(student.grad).all()


def test_refuses_networks_without_embeddings():
    with pytest.raises(ConfigError, match="teacher's embedding"):
        build_objective("pkt", {}, SignalShapes(3, 4), SignalShapes(3), Context(3, 3))
