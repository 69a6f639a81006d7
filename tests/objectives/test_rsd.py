from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.methods.rsd import EPSILON, correlation_losses
from pipeline.signals import Signals, SignalShapes

ROWS = torch.arange(6)


def pair(batch: int = 6, width: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    return s + 1, torch.randn(batch, width, generator=generator, dtype=torch.float64) + 0.5 * s


def build(student: int = 4, teacher: int = 4, **options: object) -> Objective:
    torch.manual_seed(0)
    return build_objective("rsd", options, SignalShapes(3, student), SignalShapes(3, teacher), Context(6, 3)).double()


def step(objective: Objective, student: torch.Tensor, teacher: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = ROWS[: len(student)]
    return objective(Signals(rows, student), Signals(rows, teacher), Batch(rows, rows, rows), 0.0)


@pytest.mark.parametrize("batch", [3, 6])  # fewer samples than dimensions, and more: by either product
def test_equals_the_equation_in_float64(batch: int):
    student, teacher = (x.numpy() for x in pair(batch))
    own = others = 0.0
    for i in range(4):
        for j in range(4):
            x, y = teacher[:, i], student[:, j]
            x, y = (x - x.mean()) / (x.std() + 1e-5), (y - y.mean()) / (y.std() + 1e-5)
            r = sum(x[b] * y[b] for b in range(batch)) / batch
            own, others = (own + (r - 1) ** 2, others) if i == j else (own, others + r**2)
    found = correlation_losses(*(torch.tensor(x) for x in (student, teacher)))
    assert found[0].item() == pytest.approx(own, rel=1e-12)
    assert found[1].item() == pytest.approx(others, rel=1e-12)


def test_two_samples_by_hand():
    # The first dimension rises in both, R = 1; the second falls in the student, R = -1; between both ±1, twice.
    student, teacher = torch.tensor([[0.0, 4.0], [2.0, 0.0]]).double(), torch.tensor([[1.0, 3.0], [7.0, 9.0]]).double()
    own, others = correlation_losses(student, teacher)
    assert own.item() == pytest.approx(4, rel=1e-4)
    assert others.item() == pytest.approx(2, rel=1e-4)


def test_it_vanishes_for_uncorrelated_dimensions_and_any_stretched_copy_of_them():
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).double()
    own, others = correlation_losses(signs * torch.tensor([3.0, 0.5, 10.0]) - 7, signs)
    left = sum((EPSILON * (1 + 1 / deviation)) ** 2 for deviation in (3.0, 0.5, 10.0))  # by the constant beside them
    assert own.item() == pytest.approx(left, rel=1e-3)
    assert others.item() < 1e-24


def test_dimensions_of_both_may_be_permuted_alike_and_not_otherwise():
    student, teacher = pair()
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(correlation_losses(student[:, order], teacher[:, order]), correlation_losses(*pair()))
    assert not torch.allclose(correlation_losses(student[:, order], teacher)[0], correlation_losses(*pair())[0])


@pytest.mark.parametrize("method", ["rsd", "rsd_kappa", "rsd_logits"])
def test_golden_values_of_the_reference(method: str):
    for case in golden(method):
        options = {"compare": case.options["signal"], "kappa": case.options["kappa"]}
        objective = case.objective("rsd", {**options, "projector": case.options["projector"]}).double()
        case.load(objective.projector, "rsd_projector")
        terms = objective(case.signals("student"), case.signals("teacher", 4), case.batch(), 0.5)
        case.check(torch.stack([*terms.values()]).sum())


@pytest.mark.parametrize("batch", [3, 6])
def test_gradient(batch: int):
    student, teacher = pair(batch)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: correlation_losses(s, teacher), (student,))


def test_the_projector_is_two_linear_maps_around_a_norm_and_a_gelu():
    objective, (student, _), teacher = build(4, 5, factor=1.5), pair(), pair(width=5)[1]
    inner, norm, _, outer = objective.projector
    assert (inner.weight.shape, outer.weight.shape) == ((6, 4), (5, 6))
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    hidden = student.numpy() @ inner.weight.detach().numpy().T
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    hidden = hidden * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    hidden = hidden * np.vectorize(lambda x: (1 + math.erf(x / math.sqrt(2))) / 2)(hidden)
    expected = correlation_losses(torch.tensor(hidden @ outer.weight.detach().numpy().T), teacher)
    terms = step(objective, student, teacher)
    torch.testing.assert_close(terms["correlation"], expected[0])
    torch.testing.assert_close(terms["redundancy"], 0.01 * expected[1])


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_dimensions_that_do_not_vary_correlate_with_nothing_and_have_no_gradient(value: float):
    student, teacher = torch.full((6, 4), value, requires_grad=True), pair()[1].float()
    own, others = correlation_losses(student, teacher)
    assert (own.item(), others.item()) == (4, 0)
    (own + others).backward()
    assert not student.grad.any()
    own, others = correlation_losses(pair()[0], torch.full((6, 4), value).double())
    assert (own.item(), others.item()) == (4, 0)


def test_a_batch_of_one_teaches_nothing():
    objective, (student, teacher) = build(), pair(1)
    student.requires_grad_()
    terms = step(objective, student, teacher)
    assert [term.item() for term in terms.values()] == [4, 0]
    sum(terms.values()).backward()
    assert not student.grad.any()


def test_logits_are_compared_as_they_are_unless_a_projector_is_asked_for():
    student, teacher = pair(width=3)
    signals, batch = (Signals(student), Signals(teacher)), Batch(ROWS, ROWS, ROWS)
    plain = build_objective("rsd", {"compare": "logits"}, SignalShapes(3), SignalShapes(3), Context(6, 3))
    assert plain(*signals, batch, 0.0)["correlation"] == correlation_losses(student, teacher)[0]
    options = {"compare": "logits", "projector": True}
    learned = build_objective("rsd", options, SignalShapes(3), SignalShapes(3), Context(6, 3)).double()
    assert learned(*signals, batch, 0.0)["correlation"] == correlation_losses(learned.projector(student), teacher)[0]


def test_refusals():
    with pytest.raises(ConfigError, match="4 and 7 wide"):
        build(4, 7, projector=False)
    for options, match in (({}, "student's embedding"), ({"compare": "logits"}, "the same classes")):
        with pytest.raises(ConfigError, match=match):
            build_objective("rsd", options, SignalShapes(3), SignalShapes(4, 4), Context(6, 3))
