from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden
from scipy.special import digamma, gammaln

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective, kl_divergence
from pipeline.objectives.methods.ekd import concentrations, dirichlet_divergence
from pipeline.signals import Signals, SignalShapes


def pair(rows: int = 4, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    z, t = torch.randn(2, rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    return z, t


def built(classes: int = 5, **options: Any) -> Objective:
    shapes = SignalShapes(logits=classes)
    return build_objective("ekd", options, shapes, shapes, Context(6, classes))


def compared(objective: Objective, student: torch.Tensor, teacher: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = torch.arange(len(student))
    return objective(Signals(student), Signals(teacher), Batch(rows, rows, torch.zeros_like(rows)), 0.0)


def test_two_classes_by_hand():
    # KL of Dir(1, 1), which is uniform on [0, 1], to Dir(2, 1), whose density is 2 x: the mean of -ln(2 x), 1 - ln 2.
    one, other = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[2.0, 1.0]]).double()
    assert dirichlet_divergence(other, one).item() == pytest.approx(1 - math.log(2), rel=1e-12)
    # The mean of ln(2 x) where the density is 2 x.
    assert dirichlet_divergence(one, other).item() == pytest.approx(math.log(2) - 0.5, rel=1e-12)


@pytest.mark.parametrize("log_evidence", [True, False])
def test_equals_the_equation_in_float64(log_evidence: bool):
    z, t = pair()
    prior, temperature = math.exp(-0.93), 2.0
    expectation = distribution = 0.0
    for row in range(4):
        a, b = (x[row].numpy() / temperature for x in (z, t))
        q, p = (np.exp(x) + prior for x in (a, b))
        q, p = q / q.sum(), p / p.sum()
        expectation += sum(p * np.log(p / q))
        s, u = (np.log1p(np.log1p(np.exp(x))) if log_evidence else np.log1p(np.exp(x)) for x in (a, b))
        s, u = s + prior, u + prior
        distribution += gammaln(u.sum()) - gammaln(s.sum())
        for c in range(5):
            distribution += gammaln(s[c]) - gammaln(u[c]) + (u[c] - s[c]) * (digamma(u[c]) - digamma(u.sum()))
    options = {"log_prior": -0.93, "temperature": 2.0, "log_evidence": log_evidence, "expectation_weight": 3.0}
    got = compared(built(**options, distribution_weight=0.5), z, t)
    assert got["expectation"].item() == pytest.approx(3 * 4 * expectation / 4, rel=1e-10)
    assert got["distribution"].item() == pytest.approx(0.5 * 4 * distribution / 4, rel=1e-10)


def test_it_is_the_divergence_of_torch():
    z, t = (concentrations(x, -1.22, True) for x in pair())
    dirichlet = torch.distributions.Dirichlet
    torch.testing.assert_close(
        dirichlet_divergence(z, t),
        torch.distributions.kl_divergence(dirichlet(t), dirichlet(z)),
        rtol=1e-10,
        atol=1e-12,
    )


def test_without_a_prior_the_expectation_is_kd_and_with_one_shifts_of_logits_count():
    z, t = pair()
    got = compared(built(distribution_weight=0, log_prior=-10, temperature=4.0), z + 20, t + 20)
    torch.testing.assert_close(got["expectation"], kl_divergence(z, t, 4.0).mean(), rtol=1e-3, atol=0)
    shifted = compared(built(), t + 1, t)
    assert set(shifted) == {"expectation", "distribution"}
    assert all(value > 1e-4 for value in shifted.values())
    assert all(abs(value.item()) < 1e-12 for value in compared(built(), t, t).values())


def test_half_precision_and_very_large_logits_have_finite_gradients():
    for log_evidence in (True, False):
        z, t = ((x * 2e3).half() for x in pair())
        terms = compared(built(log_evidence=log_evidence), z.requires_grad_(), t)
        (terms["expectation"] + terms["distribution"]).backward()
        assert z.grad is not None
        assert terms["distribution"].dtype == torch.float32
        assert torch.stack([*terms.values()]).isfinite().all()
        assert z.grad.isfinite().all()


def test_gradient():
    z, t = pair(2, 3)
    objective = built(3)
    assert torch.autograd.gradcheck(lambda s: torch.stack([*compared(objective, s, t).values()]), (z.requires_grad_(),))


@pytest.mark.parametrize(
    ("name", "left_out"), [("ekd", "expectation"), ("ekd_plain", "expectation"), ("ekd_expectation", "distribution")]
)
def test_golden_values_of_the_reference(name: str, left_out: str):
    for case in golden(name):
        case.check_objective("ekd", {**case.options, f"{left_out}_weight": 0})


def test_refuses_to_compare_nothing():
    with pytest.raises(ConfigError, match="nothing is compared"):
        built(expectation_weight=0, distribution_weight=0)
