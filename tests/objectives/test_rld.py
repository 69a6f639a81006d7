from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.rld import as_sure_of_the_label, ranked_below
from pipeline.signals import Signals, SignalShapes


def test_a_teacher_that_is_wrong_by_hand():
    # It gives 1/2 to class 0, the label 1 has 1/4, and only class 3 is below that.
    teacher, student = torch.tensor([[4.0, 2.0, 1.5, 0.5]]).log(), torch.tensor([[1.0, 1.0, 1.0, 1.0]]).log()
    label = torch.tensor([1])
    sure = as_sure_of_the_label(student, teacher, label, 1.0).item()
    assert sure == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75), rel=1e-5)
    # Below the label are 1.5 and 0.5, 3:1, and the student has them alike.
    below = ranked_below(student, teacher, label, 1.0).item()
    assert below == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-5)


@pytest.mark.parametrize("standard", [False, True])
def test_equals_the_equation_in_float64(standard: bool):
    random = np.random.default_rng(0)
    z, t = random.normal(size=(2, 7, 5)) * 3
    labels = random.integers(5, size=7)
    labels[0] = t[0].argmin()
    confidence = ranking = 0.0
    for row, y in enumerate(labels):
        a, b = (x[row] for x in (z, t))
        if standard:
            a, b = ((x - x.mean()) / (x.std(ddof=1) + 1e-7) for x in (a, b))
        p, q = np.exp(b / 2).max() / np.exp(b / 2).sum(), np.exp(a / 2)[y] / np.exp(a / 2).sum()
        confidence += 4 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q)))
        below = [c for c in range(5) if b[c] < b[y]]
        if below:
            p, q = (np.exp(x[below] / 3) / np.exp(x[below] / 3).sum() for x in (b, a))
            ranking += 9 * (p * np.log(p / q)).sum()
    options = {"alpha": 0.7, "beta": 3.0, "temperature": 3.0, "alpha_temperature": 2.0, "standard_logits": standard}
    shapes, rows = SignalShapes(logits=5), torch.arange(7)
    objective = build_objective("rld", options, shapes, shapes, Context(7, 5, rows % 5))
    batch = Batch(torch.from_numpy(labels), rows, torch.zeros_like(rows))
    got = objective(Signals(torch.tensor(z)), Signals(torch.tensor(t)), batch, 0.0)
    assert got["confidence"].item() == pytest.approx(0.7 * confidence / 7, rel=1e-10)
    assert got["ranking"].item() == pytest.approx(3.0 * ranking / 7, rel=1e-10)


def test_a_teacher_that_is_right_is_matched_by_itself_and_its_error_is_not_learnt():
    t = torch.tensor([[3.0, 2.0, 1.0, 0.5]], dtype=torch.float64)
    right, wrong = torch.tensor([0]), torch.tensor([1])
    assert as_sure_of_the_label(t, t, right, 2.0).item() == 0
    assert as_sure_of_the_label(t, t, wrong, 2.0).item() > 0
    # What the teacher likes better than the label may be as it likes in the student.
    other = t + torch.tensor([7.0, -7.0, 0.0, 0.0])
    assert ranked_below(other, t, wrong, 2.0).item() == pytest.approx(0, abs=1e-15)


def test_ties_are_not_below_and_where_nothing_is_there_is_no_ranking():
    t = torch.tensor([[1.0, 1.0, 0.0, -1.0], [1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, 2.0]])
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    values = ranked_below(z, t, torch.tensor([0, 0, 2]), 4.0)
    assert values[0] > 0
    assert values[1:].tolist() == [0, 0]
    values.sum().backward()
    assert z.grad is not None
    assert z.grad[0, :2].tolist() == [0, 0]
    assert (z.grad[0, 2:] != 0).all()
    assert not z.grad[1:].any()


def test_half_precision_and_very_large_logits_have_finite_gradients():
    z = (torch.randn(4, 6, generator=torch.Generator().manual_seed(0)) * 2e4).half().requires_grad_()
    t = (torch.randn(4, 6, generator=torch.Generator().manual_seed(1)) * 2e4).half()
    labels = torch.tensor([0, 5, 2, 3])
    value = as_sure_of_the_label(z, t, labels, 1.0) + ranked_below(z, t, labels, 4.0)
    assert value.dtype == torch.float32
    value.sum().backward()
    assert z.grad is not None
    assert value.isfinite().all()
    assert z.grad.isfinite().all()


def test_gradient():
    z, t = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 3, 1])

    def both(s: torch.Tensor) -> torch.Tensor:
        return torch.stack((as_sure_of_the_label(s, t, labels, 1.5), ranked_below(s, t, labels, 2.0)))

    assert torch.autograd.gradcheck(both, (z.requires_grad_(),))


@pytest.mark.parametrize("name", ["rld", "rld_standardized"])
def test_golden_values_of_the_reference(name: str):
    for case in golden(name):
        options = {**case.options}
        options["standard_logits"] = options.pop("standardize")
        terms = case.objective("rld", options).double()(
            case.signals("student"), case.signals("teacher"), case.batch(), 0.5
        )
        assert terms["confidence"].item() == pytest.approx(case.terms["scd"], rel=1e-9)
        assert terms["ranking"].item() == pytest.approx(case.terms["mcd"], rel=1e-9)
        case.check(terms["confidence"] + terms["ranking"])


def test_refuses_samples_without_label_and_too_few_classes():
    shapes = SignalShapes(logits=5)
    with pytest.raises(ConfigError, match="label for every sample"):
        build_objective("rld", {}, shapes, shapes, Context(3, 5, torch.tensor([0, -1, 2])))
    with pytest.raises(ConfigError, match="2 classes or more"):
        build_objective("rld", {}, SignalShapes(logits=1), SignalShapes(logits=1), Context(3, 1, torch.zeros(3)))
