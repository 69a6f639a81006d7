from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, maps, projected
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.methods.ofd import partial_distance, responses
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

M = torch.tensor(-1.0)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (3, 2, 1),  # positive: matched from above
        (-3, 2, 25),  # and from below
        (0, -0.5, 0.25),  # between the margin and 0: matched from above
        (-0.75, -0.5, 0),  # and free below
        (0, -4, 1),  # below the margin: the margin is enough
        (-1, -4, 0),
        (-9, -4, 0),
    ],
)
def test_cases_by_hand(student: float, teacher: float, expected: float):
    assert partial_distance(torch.tensor(student), torch.tensor(teacher), M).item() == pytest.approx(expected)


def test_of_symmetric_responses_the_margin_is_their_mean_of_negative_ones():
    # The paper's m, from the distribution itself, and the estimate from what is left after activation.
    t = torch.randn(4000, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    t = t * torch.tensor([0.5, 1.0, 3.0])[:, None, None]
    _, margin = responses(t.relu(), -2.0)
    expected = -math.sqrt(2 / math.pi) * torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(margin.flatten(), expected, rtol=0.03, atol=0)
    # Means survive low-passing: the cached grid says the same.
    _, cached = responses(torch.nn.functional.adaptive_avg_pool2d(t.relu(), 1), -2.0)
    torch.testing.assert_close(cached, margin)


def oracle(s: np.ndarray, t: np.ndarray, factor: float) -> float:
    found = 0.0
    for c in range(t.shape[1]):
        m = factor * np.maximum(t[:, c], 0).mean()
        for x, y in zip(s[:, c].flat, t[:, c].flat, strict=True):
            y = m if y == 0 else y
            if y > 0 or (m < y <= 0 and x > y):
                found += (x - y) ** 2
            elif y <= m and x > m:
                found += (x - m) ** 2
    return found / len(t)


@pytest.mark.parametrize("factor", [-2.0, -0.5, 0.0])
def test_equals_the_equation_in_float64(factor: float):
    objective = built("ofd", {"margin": factor})
    student, teacher = maps(STUDENT, 5, 1), maps(TEACHER, 5, 2)
    assert (teacher.features["block1"] == 0).any()
    teacher.features["block2"].sub_(0.3)  # a block before activation
    values = [
        oracle(projected(cell_means(array(student.features[b]), 4), connector), array(teacher.features[b]), factor)
        for b, connector in zip(("block1", "block2"), objective.connectors, strict=True)
    ]
    got = objective(student, teacher, batch(5), 0.0)["overhaul"]
    assert got.item() == pytest.approx(values[0] / 2 + values[1], rel=1e-10)


def test_of_positive_responses_it_is_the_squared_distance():
    s, t = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(partial_distance(s, t.abs() + 0.1, M), (s - t.abs() - 0.1).square())


def test_zero_asks_for_the_margin_and_no_more():
    silent = torch.zeros(2, 1, 2, 2)
    silent[0, 0, 0, 0] = 8  # mean 1: a margin of -2
    t, m = responses(silent, -2.0)
    assert m.item() == -2
    distance = partial_distance(torch.full((2, 1, 2, 2), -1.0), t, m)
    assert distance.flatten().tolist() == [81, *[1] * 7]
    assert partial_distance(torch.full((2, 1, 2, 2), -2.5), t, m).flatten()[1:].sum() == 0


def test_gradient():
    objective, student, teacher = built("ofd"), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    assert gradients_agree(objective, student, teacher, "block1", "block2")


def test_only_means_leave_silence_at_zero():
    # One pixel that fires in an otherwise silent map: only in its cell do means differ from 0.
    full = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    full[0, 0, 1, 2] = 1
    silent = {name: int((lowpass(full, 4, name) == 0).sum()) for name in ("mean", "dct", "gaussian")}
    assert silent["mean"] == 15
    assert silent["dct"] == silent["gaussian"] == 0


def test_a_silent_teacher_has_finite_gradients():
    objective = built("ofd").float()
    features = {tap: torch.zeros_like(x).float().requires_grad_() for tap, x in maps(STUDENT, 3, 1).features.items()}
    empty = {tap: torch.zeros_like(x).float() for tap, x in maps(TEACHER, 3, 2).features.items()}
    value = objective(
        Signals(torch.zeros(3, 5), features=features), Signals(torch.zeros(3, 5), features=empty), batch(3), 0.0
    )
    value["overhaul"].backward()
    assert all(x.grad.isfinite().all() for x in features.values())


def test_students_of_tokens():
    value = built("ofd", student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["overhaul"]
    assert value.isfinite()


def test_refusals():
    with pytest.raises(ConfigError, match="less than or equal to 0"):
        built("ofd", {"margin": 0.5})
    with pytest.raises(ConfigError, match="needs cached features"):
        built("ofd", teacher=SignalShapes(5, 8))
    with pytest.raises(ConfigError, match="other proportions"):
        built("ofd", teacher=SignalShapes(5, 8, {"block1": (8, 2, 4)}))
    for name in ("dct", "gaussian"):
        with pytest.raises(ConfigError, match=r"where neurons are active(.|\n)*set `signals.features.filter: mean`"):
            built("ofd", teacher=replace(TEACHER, filter=name))
