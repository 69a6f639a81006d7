from __future__ import annotations

import itertools

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.cc import congruence
from pipeline.signals import Signals, SignalShapes


def pair(batch: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, batch, 3, generator=generator, dtype=torch.float64))  # type: ignore[return-value]


@pytest.mark.parametrize("neighbours", [False, True])
def test_equals_the_equation_in_float64(neighbours: bool):
    student, teacher = pair()
    delta = abs(student.numpy() - teacher.numpy())
    found = [
        sum(delta[a, d] * delta[b, d] for d in range(3))
        for a, b in itertools.permutations(range(5), 2)
        if b == a + 1 or not neighbours
    ]
    assert congruence(student, teacher, neighbours).item() == pytest.approx(sum(found) / len(found), rel=1e-12)


def test_two_samples_by_hand():
    student, teacher = torch.tensor([[1.0, 2.0], [0.0, 5.0]]), torch.tensor([[2.0, 2.0], [3.0, 4.0]])
    for neighbours in (False, True):  # |1 - 2| · |0 - 3| + |2 - 2| · |5 - 4|
        assert congruence(student, teacher, neighbours).item() == 3.0


def test_all_pairs_are_the_mean_over_all_orders_of_the_reference():
    student, teacher = pair(4)
    orders = [list(order) for order in itertools.permutations(range(4))]
    mean = torch.stack([congruence(student[order], teacher[order], neighbours=True) for order in orders]).mean()
    torch.testing.assert_close(congruence(student, teacher), mean, rtol=1e-12, atol=0)


def test_samples_that_agree_add_nothing():
    student, teacher = pair()
    assert congruence(student, student) == 0
    one = torch.cat((teacher[:1], student[1:]))
    assert congruence(one, student) == 0  # one sample alone may err


@pytest.mark.parametrize("neighbours", [False, True])
def test_gradient(neighbours: bool):
    student, teacher = (x.requires_grad_() for x in pair(4))
    assert torch.autograd.gradcheck(lambda s, t: congruence(s, t, neighbours), (student, teacher))


@pytest.mark.parametrize("pairs", ["all", "neighbours"])
def test_the_objective_embeds_both_and_knows_one_sample(pairs: str):
    shapes = SignalShapes(3, 4), SignalShapes(3, 7)
    options = {"embedding_width": 5, "pairs": pairs}
    objective = build_objective("cc", options, *shapes, Context(6, 3))
    assert {tuple(p.shape) for p in objective.parameters()} == {(5, 4), (5, 7), (5,)}
    for size in (1, 2, 3):
        rows = torch.arange(size)
        said = (Signals(torch.zeros(size, 3), torch.randn(size, shape.embedding)) for shape in shapes)
        value = objective(*said, Batch(rows, rows, rows), 0.0)["congruence"]
        assert (value > 0) if size > 1 else (value == 0)


def test_refuses_networks_without_embeddings():
    with pytest.raises(ConfigError, match="teacher's embedding"):
        build_objective("cc", {}, SignalShapes(3, 4), SignalShapes(3), Context(3, 3))
