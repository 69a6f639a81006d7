from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden import golden
from objectives.layers import Array, cell_means
from objectives.maps import CONTEXT, built, gradients_agree, network, value
from torch.nn.functional import mse_loss

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.signals import Signals, SignalShapes, extract

STUDENT, TEACHER = ((3, 16), (5, 8)), ((4, 16), (7, 8))


def remembered(full: Signals, *blocks: str) -> Signals:
    """What a cache holds with attention maps as extra signals, and no features."""
    maps = {f"attention-map/{block}": extract("attention-map", full.features[block]) for block in blocks}
    return replace(full, features={}, extras=maps)


def distance(student: Array, teacher: Array) -> float:
    """The equation, of maps [B, C, h, w], place by place."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        maps = []
        for x in (s, t):
            attention = np.array([[(x[:, i, j] ** 2).mean() for j in range(x.shape[2])] for i in range(x.shape[1])])
            maps.append(attention / np.sqrt((attention**2).sum()))
        total += ((maps[0] - maps[1]) ** 2).mean() / len(student)
    return total


def test_two_places_by_hand():
    # (3² + 1)/2 : 0 is (1, 0); 4 : 4 is (1, 1)/√2.
    student, teacher = torch.tensor([[[[3.0, 0.0]], [[1.0, 0.0]]]]), torch.tensor([[[[2.0, -2.0]]]])
    half = 0.5**0.5
    loss = mse_loss(extract("attention-map", student), extract("attention-map", teacher))
    assert loss.item() == pytest.approx(((1 - half) ** 2 + half**2) / 2, rel=1e-6)


def test_equals_the_equation_in_float64_on_means():
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=4)
    expected = sum(
        distance(cell_means(student.features[block], 4), cell_means(full.features[block], 4))
        for block in ("block1", "block2")
    )
    assert value(built("at", student, cached), student, cached).item() == pytest.approx(expected, rel=1e-10)


def test_with_the_extra_signal_it_is_exact():
    # The oracle sees the teacher's full maps; means over 4 x 4 would be far off.
    student, full = network(1, *STUDENT), network(2, *TEACHER)
    cached = remembered(full, "block1", "block2")
    exact = sum(distance(student.features[b].numpy(), full.features[b].numpy()) for b in ("block1", "block2"))
    objective = built("at", student, cached, signal="extra")
    assert objective.needs.teacher == {"extras/attention-map/block1", "extras/attention-map/block2"}
    assert value(objective, student, cached).item() == pytest.approx(exact, rel=1e-10)
    low = network(2, *TEACHER, grid=4)
    assert value(built("at", student, low), student, low).item() > 2 * exact


def test_a_finer_student_is_reduced_before_it_is_squared():
    student, full = network(1, (3, 16)), network(2, (4, 8))
    cached = remembered(full, "block1")
    expected = distance(cell_means(student.features["block1"], 8), full.features["block1"].numpy())
    assert value(built("at", student, cached, signal="extra"), student, cached).item() == pytest.approx(expected)


def test_the_strength_of_a_map_does_not_count():
    maps = network(1, (4, 4)).features["block1"]
    louder = maps * torch.linspace(0.1, 7, 5, dtype=torch.float64)[:, None, None, None]
    assert mse_loss(extract("attention-map", louder), extract("attention-map", maps)).item() < 1e-28


def test_golden_values_of_the_reference():
    for case in golden("at"):
        case.check_objective("at", case.options, grid=8)


def test_golden_values_from_the_extra_signal():
    for case in golden("at"):
        cached = remembered(case.signals("teacher"), "block1")
        objective = built("at", case.signals("student"), cached, signal="extra")
        case.check(value(objective, case.signals("student"), cached))


def test_gradient():
    student, full = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    assert gradients_agree(built("at", student, full), student, full, "block1", "block2")
    small, cached = network(1, (3, 4)), remembered(network(2, (4, 4)), "block1")
    assert gradients_agree(built("at", small, cached, signal="extra"), small, cached, "block1")


def test_what_cannot_be_compared_is_refused_with_the_way_out():
    student = SignalShapes(3, features={"block1": (4, 8, 8), "block2": (4, 4, 4)})
    teacher = SignalShapes(3, features={"block2": (4, 4, 4), "block3": (4, 4, 4)})

    def refused(match: str, extras: dict[str, tuple[int, ...]], **options: object) -> None:
        with pytest.raises(ConfigError, match=match):
            build_objective("at", {"signal": "extra", **options}, student, replace(teacher, extras=extras), CONTEXT)

    refused(r"do: add `extras: \[attention-map/block3\]` to `signals` and cache the teacher again, or set", {})
    refused(r"add `extras: \[attention-map/block2\]`", {"attention-map/block3": (4, 4)}, blocks=["block2"])
    refused(r"expected: 8 x 8\n  got: 4 x 4 at block2\n  do: leave block3 out", {"attention-map/block3": (8, 8)})
    refused("two or more", {"attention-map/block3": (1, 1)})
    with pytest.raises(ConfigError, match="compares 2 places"):
        build_objective("at", {}, student, SignalShapes(3, features={"block2": (4, 1, 1)}), CONTEXT)
