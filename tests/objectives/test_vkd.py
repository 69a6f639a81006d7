from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.vkd import Orthogonal, vkd_loss
from pipeline.signals import Signals, SignalShapes


def build(student: int, teacher: int):
    torch.manual_seed(0)
    return build_objective("vkd", {}, SignalShapes(3, student), SignalShapes(3, teacher), Context(6, 3)).double()


def step(objective, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    rows = torch.arange(len(student))
    said = (Signals(torch.zeros(len(student), 3), x) for x in (student, teacher))
    return objective(*said, Batch(rows, rows, rows), 0.0)["feature"]


def pair(student: int, teacher: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(  # type: ignore[return-value]
        3 * torch.randn(6, width, generator=generator, dtype=torch.float64) + 1 for width in (student, teacher)
    )


@pytest.mark.parametrize(("student", "teacher"), [(4, 9), (9, 4), (5, 5)])
def test_equals_the_equation_in_float64(student: int, teacher: int):
    objective, (s, t) = build(student, teacher), pair(student, teacher)
    weight, found = objective.projector.weight.detach().numpy(), []
    for x, y in zip(s.numpy(), t.numpy(), strict=True):
        target = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        for d in range(teacher):
            error = abs(weight[d] @ x - target[d])
            found.append(error * error / 2 if error < 1 else error - 0.5)
    assert step(objective, s, t).item() == pytest.approx(np.mean(found), rel=1e-12)


def test_two_entries_by_hand():
    # (5, 1) is normalised to (1, -1); errors of 1/2 and 3 cost 1/8 and 5/2.
    got = vkd_loss(torch.tensor([[1.5, 2.0]]), torch.tensor([[5.0, 1.0]]))
    assert got.item() == pytest.approx((1 / 8 + 5 / 2) / 2, rel=1e-4)


@pytest.mark.parametrize(("width", "to"), [(4, 9), (9, 4), (5, 5)])
def test_the_map_stays_orthogonal_and_learns(width: int, to: int):
    torch.manual_seed(0)
    layer = Orthogonal(width, to).double()
    x, wanted = torch.randn(50, width, dtype=torch.float64), Orthogonal(width, to).double().weight.detach()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, weight_decay=5e-4)
    before = layer.weight.detach()
    for _ in range(30):
        optimizer.zero_grad()
        (layer(x) - x @ wanted.T).square().mean().backward()
        optimizer.step()
    weight = layer.weight.detach()
    product = weight @ weight.T if to < width else weight.T @ weight
    torch.testing.assert_close(product, torch.eye(min(width, to), dtype=torch.float64), rtol=0, atol=1e-12)
    assert (weight - wanted).norm() < (before - wanted).norm()


def test_a_student_that_is_the_target_turned_can_reach_it():
    # Angles and lengths are kept: P f_s = t̂ has a solution for f_s = Pᵀ t̂.
    objective, (_, t) = build(5, 5), pair(5, 5)
    target = torch.nn.functional.layer_norm(t, (5,))
    assert step(objective, target @ objective.projector.weight, t).item() == pytest.approx(0, abs=1e-24)


def test_the_length_and_mean_of_the_teachers_embedding_do_not_count():
    objective, (s, t) = build(4, 9), pair(4, 9)
    torch.testing.assert_close(step(objective, s, 100 * t + 7), step(objective, s, t), rtol=1e-5, atol=0)


@pytest.mark.parametrize(("student", "teacher"), [(3, 4), (4, 3)])
def test_gradient(student: int, teacher: int):
    objective, (s, t) = build(student, teacher), pair(student, teacher)

    def loss(x: torch.Tensor, free: torch.Tensor) -> torch.Tensor:
        return vkd_loss(torch.func.functional_call(objective.projector, {"free": free}, (x,)), t)

    free = objective.projector.free.detach().requires_grad_()
    assert torch.autograd.gradcheck(loss, (s.requires_grad_(), free))


def test_refuses_networks_without_embeddings():
    with pytest.raises(ConfigError, match="teacher's embedding"):
        build_objective("vkd", {}, SignalShapes(3, 4), SignalShapes(3), Context(3, 3))
