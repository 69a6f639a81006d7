from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective, kl_divergence
from pipeline.objectives.methods.ldrld import local_relations
from pipeline.signals import Signals, SignalShapes


def pair(rows: int = 5, classes: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    z, t = torch.randn(2, rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    return z, t


def built(classes: int, **options: Any) -> Objective:
    shapes = SignalShapes(logits=classes)
    return build_objective("ldrld", options, shapes, shapes, Context(6, classes)).double()


def compared(objective: Objective, student: torch.Tensor, teacher: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = torch.arange(len(student))
    return objective(Signals(student), Signals(teacher), Batch(rows, rows, torch.zeros_like(rows)), 0.0)


def test_two_favourites_of_four_by_hand():
    # Its order is 2, 0, 1, 3. Of the first two the student has 3:1 and the teacher 1:1; of the rest 2:1 and 1:2.
    student = torch.tensor([[2.0, 1.0, 6.0, 0.5]]).double().log()
    teacher = torch.tensor([[5.0, 1.0, 5.0, 2.0]]).double().log()
    got = compared(built(4, top=2, temperature=1, alpha=1, beta=1), student, teacher)
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    weight = 2 * math.exp(-0.15) / 2.5  # of the pair, and of the set, which is the pair; over two
    assert got["local"].item() == pytest.approx(weight * divergence, rel=1e-12)
    assert got["rest"].item() == pytest.approx(math.log(2) / 3, rel=1e-12)


@pytest.mark.parametrize("top", [2, 4, 6])
def test_equals_the_equation_in_float64(top: int):
    z, t = pair()
    local = rest = 0.0

    def divergence(row: int, classes: list[int]) -> float:
        p, q = (np.exp(x[row, classes].numpy() / 2) for x in (t, z))
        p, q = p / p.sum(), q / q.sum()
        return 4 * float((p * np.log(p / q)).sum())

    for row in range(5):
        order = sorted(range(6), key=lambda c, row=row: -z[row, c].item())  # type: ignore[misc]
        sets = [*combinations(range(top), 2), tuple(range(top))]
        for places in sets:
            weight = 1.0
            if len(places) == 2:
                i, j = places[0] + 1, places[1] + 1
                weight = 2 * math.exp(-0.05 * (i + j)) / (1.5 + abs(i - j))
            local += weight * divergence(row, [order[place] for place in places]) / len(sets)
        rest += divergence(row, order[top:] or order)
    got = compared(built(6, top=top, temperature=2, alpha=0.5, beta=3), z, t)
    assert got["local"].item() == pytest.approx(0.5 * local / 5, rel=1e-10)
    assert got["rest"].item() == pytest.approx(3 * rest / 5, rel=1e-10)


def test_classes_may_be_renamed_and_those_beyond_the_first_say_nothing_of_order():
    z, t = pair()
    objective, names = built(6, top=3), torch.tensor([4, 0, 5, 1, 3, 2])
    torch.testing.assert_close(compared(objective, z[:, names], t[:, names]), compared(objective, z, t))


def test_with_as_many_as_there_are_classes_the_rest_is_kd():
    z, t = pair()
    got = compared(built(6, top=9, beta=1), z, t)
    torch.testing.assert_close(got["rest"], kl_divergence(z, t, 4.0).mean(), rtol=1e-12, atol=0)


def test_ties_of_the_student_have_the_order_of_their_numbers():
    z, t = torch.zeros(2, 4).double(), torch.tensor([[3.0, 1.0, 0.0, 2.0], [1.0, 1.0, 4.0, 0.0]]).double()
    got = compared(built(4, top=2, alpha=1, beta=1, temperature=1), z, t)
    expected = local_relations(z[:, :2], t[:, :2], 1.0).mean()
    torch.testing.assert_close(got["local"], expected, rtol=1e-12, atol=0)


def test_half_precision_and_very_large_logits_have_finite_gradients():
    z, t = ((x * 2e3).half() for x in pair())
    shapes = SignalShapes(logits=6)
    objective = build_objective("ldrld", {"top": 3}, shapes, shapes, Context(6, 6))
    terms = compared(objective, z.requires_grad_(), t)
    (terms["local"] + terms["rest"]).backward()
    assert z.grad is not None
    assert terms["local"].dtype == torch.float32
    assert z.grad.isfinite().all()


def test_gradient():
    z, t = pair(3)
    objective = built(6, top=4)
    assert torch.autograd.gradcheck(lambda s: torch.stack([*compared(objective, s, t).values()]), (z.requires_grad_(),))


@pytest.mark.parametrize("name", ["ldrld", "ldrld_top4", "ldrld_all"])
def test_golden_values_of_the_reference(name: str):
    for case in golden(name):
        objective = case.objective("ldrld", case.options).double()
        terms = objective(case.signals("student"), case.signals("teacher"), case.batch(), 0.5)
        for term, expected in case.terms.items():
            assert terms[term].item() == pytest.approx(expected, rel=1e-9)
        case.check(terms["local"] + terms["rest"])


def test_refuses_one_class():
    with pytest.raises(ConfigError, match="2 classes or more"):
        built(1)
