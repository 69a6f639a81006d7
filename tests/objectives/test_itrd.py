from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.itrd import correlation_loss, mutual_loss
from pipeline.signals import Signals, SignalShapes


def pair(batch: int = 6, student: int = 4, teacher: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(batch, student, generator=generator, dtype=torch.float64)
    return s + 1, torch.randn(batch, teacher, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("alpha", [1.01, 1.5])
def test_correlation_equals_the_equation_in_float64(alpha: float):
    student, teacher = pair()
    total = 0.0
    for d in range(4):
        x, y = (z[:, d].numpy() for z in (student, teacher))
        x, y = (x - x.mean()) / x.std(ddof=1), (y - y.mean()) / y.std(ddof=1)
        total += abs(sum(x[b] * y[b] for b in range(6)) / 6 - 1) ** (2 * alpha)
    assert correlation_loss(student, teacher, alpha).item() == pytest.approx(math.log2(total), rel=1e-12)


def test_mutual_equals_the_equation_in_float64():
    student, teacher = pair(student=4, teacher=7)

    def cosines(f: np.ndarray) -> np.ndarray:
        return np.array([[a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for b in f] for a in f])

    s, t = cosines(student.numpy()), cosines(teacher.numpy())
    expected = sum(
        (s[i, j] / np.trace(s)) ** 2 - (s[i, j] * t[i, j] / np.trace(s * t)) ** 2 for i in range(6) for j in range(6)
    )
    assert mutual_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_two_samples_by_hand():
    # One dimension rises in both networks, c = 1/2 (B - 1 in the deviation, B in the mean); one falls, c = -1/2.
    student, teacher = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).double(), torch.tensor([[2.0, 3.0], [9.0, 4.0]]).double()
    assert correlation_loss(student, teacher, 1.0).item() == pytest.approx(math.log2(0.25 + 2.25), rel=1e-12)
    # Orthogonal in one network and parallel in the other: Gram matrices 1 and a matrix of ones.
    parallel = torch.tensor([[1.0, 1.0], [2.0, 2.0]]).double()
    assert mutual_loss(parallel, student).item() == pytest.approx(1 - 1 / 2, rel=1e-12)
    assert mutual_loss(student, parallel).item() == pytest.approx(0, abs=1e-12)


def test_a_stretched_copy_correlates_as_well_as_can_be():
    student, _ = pair()
    stretched = student * torch.tensor([1.0, 2.0, 3.0, 4.0]) - 5
    floor = math.log2(4 * 6 ** (-2 * 1.5))
    assert correlation_loss(stretched, student, 1.5).item() == pytest.approx(floor, rel=1e-9)


def test_golden_correlation_of_the_reference():
    for case in golden("itrd_correlation"):
        objective = case.objective("itrd", {**case.options, "mutual_weight": 0.0, "correlation_weight": 1.0}).double()
        with torch.no_grad():  # the reference's value is for an embedding that changes nothing
            objective.embed.weight.copy_(torch.eye(len(objective.embed.weight)))
            objective.embed.bias.zero_()
        terms = objective(case.signals("student"), case.signals("teacher", 4), case.batch(), 0.5)
        assert set(terms) == {"correlation"}
        case.check(terms["correlation"])


def test_golden_mutual_of_the_reference():
    for case in golden("itrd_mutual"):
        case.check_objective("itrd", {"correlation_weight": 0.0})


def test_gradient():
    student, teacher = pair()
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: correlation_loss(s, teacher, 1.01), (student,))
    assert torch.autograd.gradcheck(lambda s: mutual_loss(s, teacher), (student,))


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_dimensions_that_do_not_vary_have_no_gradient(batch: int, value: float):
    student, teacher = torch.full((batch, 4), value, requires_grad=True), pair(batch)[1].float()
    loss = correlation_loss(student, teacher, 1.01)
    assert loss.item() == pytest.approx(math.log2(4))
    (loss + mutual_loss(student, teacher)).backward()
    assert torch.isfinite(student.grad).all()


def test_one_embedding_serves_both_terms_where_widths_differ():
    student, teacher = pair(student=4, teacher=7)
    objective = build_objective("itrd", {}, SignalShapes(3, 4), SignalShapes(3, 7), Context(6, 3)).double()
    rows = torch.arange(6)
    terms = objective(Signals(rows, student), Signals(rows, teacher), Batch(rows, rows, rows), 0.0)
    embedded = objective.embed(student)
    torch.testing.assert_close(terms["correlation"], 2 * correlation_loss(embedded, teacher, 1.01))
    torch.testing.assert_close(terms["mutual"], mutual_loss(embedded, teacher))


def test_refuses_networks_without_embeddings():
    with pytest.raises(ConfigError, match="student's embedding"):
        build_objective("itrd", {}, SignalShapes(3), SignalShapes(3, 4), Context(3, 3))
