from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, maps, projected
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.methods.tas import smoothed_contrast
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass


def none_same(size: int) -> torch.Tensor:
    return torch.zeros(size, size, dtype=torch.bool)


def test_two_samples_by_hand():
    # Own cosine 1, the other's 0.6: -log(e^(1/τ) / (e^(1/τ) + e^(0.6/τ))), for the first; the second alike.
    x = torch.tensor([[1.0, 0.0], [0.6, 0.8]])[..., None, None]
    value = smoothed_contrast(x, 3 * x, none_same(2), 0.2)
    assert value.tolist() == pytest.approx([math.log1p(math.exp(-2))] * 2, rel=1e-5)


@pytest.mark.parametrize("grid", [1, 2])
def test_equals_the_equation_in_float64(grid: int):
    tau, size, values = 0.3, 5, []
    sample = [0, 1, 1, 2, 3]
    objective = built("tas", {"grid": grid, "temperature": tau})
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    for block, projector in zip(("block1", "block2"), objective.projectors, strict=True):
        s = projected(cell_means(array(student.features[block]), grid), projector)
        t = cell_means(array(teacher.features[block]), grid)
        t = (t - t.mean((0, 2, 3), keepdims=True)) / np.sqrt(t.var((0, 2, 3), keepdims=True) + 1e-5)
        u, v = ([x.ravel() / np.sqrt((x**2).sum()) for x in each] for each in (s, t))
        for b in range(size):
            rivals = [j for j in range(size) if j == b or sample[j] != sample[b]]
            values.append(-u[b] @ v[b] / tau + np.log(sum(np.exp(u[b] @ v[j] / tau) for j in rivals)))
    got = objective(student, teacher, batch(size, sample=sample), 0.0)["smoothed"]
    assert got.item() == pytest.approx(np.mean(values), rel=1e-10)


def test_places_do_not_matter():
    # Turning the student's and the teacher's maps upside down, or only one of them, changes nothing.
    objective, student, teacher = built("tas"), maps(STUDENT, 5, 1), maps(TEACHER, 5, 2)
    turned = Signals(student.logits, features={tap: x.flip(2) for tap, x in student.features.items()})
    one, other = (objective(s, teacher, batch(5), 0.0)["smoothed"] for s in (student, turned))
    torch.testing.assert_close(one, other)


def test_full_maps_and_their_cached_means_are_the_same():
    full = SignalShapes(5, 8, {"block1": (5, 16, 16), "block2": (8, 8, 8)}, linear=True)
    objective, student, teacher = built("tas", teacher=full), maps(STUDENT, 5, 1), maps(full, 5, 2)
    cached = Signals(teacher.logits, features={tap: lowpass(x, 4) for tap, x in teacher.features.items()})
    one, other = (objective(student, t, batch(5), 0.0)["smoothed"] for t in (teacher, cached))
    torch.testing.assert_close(one, other)


def test_gradient():
    objective, student, teacher = built("tas"), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    assert gradients_agree(objective, student, teacher, "block1", "block2")


def test_empty_maps_have_finite_gradients_and_the_loss_of_a_guess():
    maps_ = torch.zeros(4, 3, 1, 1, requires_grad=True)
    value = smoothed_contrast(maps_, torch.zeros(4, 3, 1, 1), none_same(4), 0.1)
    value.sum().backward()
    assert value.tolist() == pytest.approx([math.log(4)] * 4)
    assert maps_.grad.isfinite().all()


def test_students_of_tokens_and_refusals():
    value = built("tas", student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["smoothed"]
    assert value.isfinite()
    with pytest.raises(ConfigError, match=r"tas\.grid: is finer than the coarsest map"):
        built("tas", {"grid": 8})
    with pytest.raises(ConfigError, match="needs cached features"):
        built("tas", teacher=SignalShapes(5, 8))
