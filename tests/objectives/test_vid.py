from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import cell_means
from objectives.maps import CONTEXT, built, gradients_agree, network, value

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.methods.vid import VID, gaussian_losses
from pipeline.signals import SignalShapes

STUDENT, TEACHER = ((3, 8), (5, 8)), ((4, 16), (7, 16))


def test_two_numbers_by_hand():
    value = gaussian_losses(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([2.0, math.e])).mean()
    assert value.item() == pytest.approx(((4 / 2 + math.log(2)) / 2 + (1 / math.e + 1) / 2) / 2, rel=1e-6)


def test_equals_the_equation_in_float64_on_means():
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=4)
    objective = built("vid", student, cached)
    assert isinstance(objective, VID)
    expected = 0.0
    for predictor, block in zip(objective.predictors, ("block1", "block2"), strict=True):
        with torch.no_grad():
            predictor.raw_variance += torch.linspace(-6, 3, len(predictor.raw_variance), dtype=torch.float64)
        s, t = (cell_means(signals.features[block], 4) for signals in (student, full))
        weights = [predictor.mean[i].weight.detach().numpy() for i in (0, 2, 4)]
        variance = np.log1p(np.exp(predictor.raw_variance.detach().numpy())) + 1e-5
        losses = []
        for b, i, j in np.ndindex(len(s), 4, 4):
            hidden = np.maximum(weights[1] @ np.maximum(weights[0] @ s[b, :, i, j], 0), 0)
            mean = weights[2] @ hidden
            losses += [
                0.5 * ((y - m) ** 2 / v + math.log(v)) for y, m, v in zip(t[b, :, i, j], mean, variance, strict=True)
            ]
        expected += float(np.mean(losses))
    assert value(objective, student, cached).item() == pytest.approx(expected, rel=1e-10)


def test_variances_begin_at_five_and_are_learned():
    student, teacher = network(1, (3, 4)), network(2, (4, 4))
    (predictor,) = built("vid", student, teacher).predictors
    torch.testing.assert_close(
        torch.nn.functional.softplus(predictor.raw_variance) + 1e-5, torch.full((4,), 5.0).double()
    )
    assert predictor.raw_variance.requires_grad


def test_the_best_variance_is_the_mean_squared_error_and_gives_the_entropy_of_a_gaussian():
    # The bound's limit: at v = E (t - μ)², L = ½ (1 + log v).
    generator = torch.Generator().manual_seed(0)
    error = torch.randn(500, 3, generator=generator, dtype=torch.float64) * torch.tensor([0.1, 1.0, 7.0])
    best = error.square().mean(0)
    at_best = gaussian_losses(torch.zeros_like(error), error, best).mean()
    torch.testing.assert_close(at_best, (1 + best.log()).mean() / 2)
    for factor in (0.9, 1.1):
        assert gaussian_losses(torch.zeros_like(error), error, best * factor).mean() > at_best


def test_gradient():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("vid", student, teacher)
    assert gradients_agree(objective, student, teacher, "block1", "block2")
    error = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    variance = torch.tensor([0.2, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: gaussian_losses(error, error.flip(0), v).mean(), (variance,))


def test_features_that_are_not_cached_are_refused():
    shapes = SignalShapes(3, features={"block1": (4, 4, 4)})
    with pytest.raises(ConfigError, match="add `features"):
        build_objective("vid", {}, shapes, SignalShapes(3), CONTEXT)
