from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective, kl_divergence
from pipeline.objectives.methods.abkd import alpha_beta_divergence
from pipeline.signals import Signals, SignalShapes

POWERS = [(0.8, 0.3), (0.5, 0.5), (1.4, -0.4), (-0.3, 0.9), (2.0, -3.0)]
LIMITS = [(0.7, 0.0), (-0.4, 0.0), (0.0, 0.6), (0.5, -0.5), (-0.5, 0.5), (0.0, 0.0)]


def pair(rows: int = 6, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    z, t = torch.randn(2, rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
    return z, t


def built(classes: int, **options: Any) -> Objective:
    shapes = SignalShapes(logits=classes)
    return build_objective("abkd", options, shapes, shapes, Context(6, classes))


def test_two_classes_by_hand():
    # p = (1/2, 1/2), q = (1/4, 3/4), α = β = 1: half the squared distance, 2 · (1/4)² / 2.
    student, teacher = torch.tensor([[1.0, 3.0]]).log(), torch.zeros(1, 2)
    assert alpha_beta_divergence(student, teacher, 1.0, 1.0).item() == pytest.approx(1 / 16, rel=1e-5)
    # α = β = 0: half the sum of (ln 2)² and (ln 2/3)².
    expected = (math.log(2) ** 2 + math.log(2 / 3) ** 2) / 2
    assert alpha_beta_divergence(student, teacher, 0.0, 0.0).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("alpha", "beta"), POWERS)
def test_equals_the_equation_in_float64(alpha: float, beta: float):
    z, t = pair()
    total, both = 0.0, alpha + beta
    for row in range(6):
        p, q = (np.exp(x[row].numpy() / 3) / np.exp(x[row].numpy() / 3).sum() for x in (t, z))
        for a, b in zip(p, q, strict=True):
            total += a**both / (beta * both) + b**both / (alpha * both) - a**alpha * b**beta / (alpha * beta)
    rows = torch.arange(6)
    objective = built(5, alpha=alpha, beta=beta, temperature=3.0)
    got = objective(Signals(z), Signals(t), Batch(rows, rows, torch.zeros_like(rows)), 0.0)
    assert got["divergence"].item() == pytest.approx(total / 6, rel=1e-10)


@pytest.mark.parametrize(("alpha", "beta"), LIMITS)
def test_what_has_a_zero_is_the_limit_of_the_general_case(alpha: float, beta: float):
    z, t = pair()
    near = alpha_beta_divergence(z, t, alpha + 1e-5, beta + 2e-5)
    torch.testing.assert_close(near, alpha_beta_divergence(z, t, alpha, beta), rtol=1e-3, atol=1e-5)


def test_both_directions_of_kl_are_among_them():
    z, t = pair()
    torch.testing.assert_close(alpha_beta_divergence(z, t, 1.0, 0.0), kl_divergence(z, t), rtol=1e-10, atol=0)
    torch.testing.assert_close(alpha_beta_divergence(z, t, 0.0, 1.0), kl_divergence(t, z), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("alpha", "beta"), POWERS + LIMITS)
def test_it_is_zero_and_least_where_both_agree_and_its_gradient_is_that_of_its_values(alpha: float, beta: float):
    z, t = pair(3)
    least = alpha_beta_divergence(t, t, alpha, beta)
    torch.testing.assert_close(least, torch.zeros_like(least), rtol=0, atol=1e-12)
    assert (alpha_beta_divergence(t + 0.01 * z, t, alpha, beta) > 0).all()
    assert torch.autograd.gradcheck(lambda s: alpha_beta_divergence(s, t, alpha, beta), (z.requires_grad_(),))


@pytest.mark.parametrize(("alpha", "beta"), POWERS + LIMITS)
def test_very_sure_networks_have_finite_gradients(alpha: float, beta: float):
    z, t = (x.float() * 2000 for x in pair())
    value = alpha_beta_divergence(z.requires_grad_(), t, alpha, beta)
    value.sum().backward()
    assert z.grad is not None
    assert value.isfinite().all()
    assert z.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    z, t = (x.half() * 2000 for x in pair())
    value = alpha_beta_divergence(z.requires_grad_(), t, 0.8, 0.3)
    value.sum().backward()
    assert value.dtype == torch.float32
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("name", ["abkd", "abkd_half", "abkd_negative", "abkd_forward_kl", "abkd_reverse_kl"])
def test_golden_values_of_the_reference(name: str):
    for case in golden(name):
        case.check_objective("abkd", case.options)


@pytest.mark.parametrize("name", ["abkd_opposite", "abkd_log"])
def test_golden_values_of_the_limits_of_the_reference(name: str):
    for case in golden(name):
        case.check_objective("abkd", {**case.options, "limits": "code"})


@pytest.mark.parametrize(
    ("alpha", "beta", "factor"), [(0.7, 0.0, 0.7), (0.0, 0.6, 0.6), (0.5, -0.5, 0.5), (0.7, 0.4, 1)]
)
def test_the_limits_of_the_code_are_divided_once(alpha: float, beta: float, factor: float):
    z, t = pair()
    rows = torch.arange(6)
    given = Signals(z), Signals(t), Batch(rows, rows, torch.zeros_like(rows)), 0.0
    ours, theirs = (built(5, alpha=alpha, beta=beta, limits=form)(*given) for form in ("definition", "code"))
    torch.testing.assert_close(theirs["divergence"], factor * ours["divergence"])


def test_powers_next_to_zero_are_refused():
    for options, name in (({"alpha": 1e-3}, "alpha is 0.001"), ({"alpha": 0.3, "beta": -0.3001}, r"alpha \+ beta")):
        with pytest.raises(ConfigError, match=f"{name}.*must be 0, or 0.01 or more"):
            built(5, **options)
    with pytest.raises(ConfigError, match="divides by a negative power"):
        built(5, alpha=-0.5, beta=0.5, limits="code")
