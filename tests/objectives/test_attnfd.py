from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import (
    STUDENT,
    TEACHER,
    TOKENS,
    array,
    batch,
    built,
    cell_means,
    convolved,
    maps,
    normalised,
    projected,
)
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.methods.attnfd import Refinement, plainly_refined, refined_loss
from pipeline.signals import Signals, SignalShapes


def sigmoid(x: np.ndarray | float) -> np.ndarray | float:
    return 1 / (1 + np.exp(-x))


def test_gates_by_hand():
    # One channel of 0 and 2: its mean is 1 and its largest 2; then each place's own value is both of its statistics.
    found = plainly_refined(torch.tensor([[[[0.0, 2.0]]]]))
    gated = 2 * sigmoid(3.0)
    assert found.flatten().tolist() == pytest.approx([0, gated * sigmoid(2 * gated)])


def test_distance_by_hand():
    # Two samples, one number each, (3, 4) against (1, 0): lengths 5 and 1, (0.4² + 0.8²) / 2.
    value = refined_loss(torch.tensor([3.0, 4.0]).reshape(2, 1, 1, 1), torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
    assert value.item() == pytest.approx(0.4)


def oracle_plain(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for b in range(len(x)):
        gated = np.stack([c * sigmoid(c.mean() + c.max()) for c in x[b]])
        out[b] = gated * sigmoid(gated.max(0) + gated.mean(0))
    return out


def oracle_learned(x: np.ndarray, refinement: Refinement) -> np.ndarray:
    first, _, second = refinement.channels

    def scores(pooled: np.ndarray) -> np.ndarray:
        hidden = np.maximum(pooled @ array(first.weight).T + array(first.bias), 0)
        return hidden @ array(second.weight).T + array(second.bias)

    gated = x * sigmoid(scores(x.mean((2, 3))) + scores(x.max((2, 3))))[..., None, None]
    both = np.stack([gated.max(1), gated.mean(1)], axis=1)
    return gated * sigmoid(normalised(convolved(both, array(refinement.places.linear.weight)), refinement.places.norm))


def test_equals_the_equation_in_float64():
    size, expected = 5, 0.0
    objective = built("attnfd")
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    for index, block in enumerate(("block1", "block2")):
        s = oracle_learned(cell_means(array(student.features[block]), 4), objective.refinements[index])
        s, t = projected(s, objective.connectors[index]), oracle_plain(array(teacher.features[block]))
        expected += ((s / np.sqrt((s**2).sum()) - t / np.sqrt((t**2).sum())) ** 2).sum() / size
    got = objective(student, teacher, batch(size), 0.0)["refined"]
    assert got.item() == pytest.approx(expected, rel=1e-10)


def test_equal_directions_are_no_distance_and_opposite_ones_four_over_b():
    x = torch.randn(3, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert refined_loss(7 * x, x).item() == pytest.approx(0, abs=1e-15)
    assert refined_loss(-x, x).item() == pytest.approx(4 / 3)


def test_gradient():
    objective, student, teacher = built("attnfd"), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    assert gradients_agree(objective, student, teacher, "block1", "block2")


def test_empty_maps_have_finite_gradients():
    objective = built("attnfd").float()
    features = {tap: torch.zeros_like(x).float().requires_grad_() for tap, x in maps(STUDENT, 3, 1).features.items()}
    empty = {tap: torch.zeros_like(x).float() for tap, x in maps(TEACHER, 3, 2).features.items()}
    logits = torch.zeros(3, 5)
    value = objective(Signals(logits, features=features), Signals(logits, features=empty), batch(3), 0.0)["refined"]
    value.backward()
    assert math.isfinite(value.item())
    assert all(x.grad.isfinite().all() for x in features.values())


def test_the_two_deepest_blocks_unless_others_are_named():
    three = SignalShapes(5, 8, {f"block{i}": (8, 4, 4) for i in (1, 2, 3)}, linear=True)
    assert built("attnfd", student=TOKENS, teacher=three).needs.teacher == {"features/block2", "features/block3"}
    named = built("attnfd", {"blocks": ["block1"]}, student=TOKENS, teacher=three)
    assert [(pair.student, pair.teacher) for pair in named.pairs] == [("block2", "block1")]


def test_refusals():
    with pytest.raises(ConfigError, match="2 places of a map or more"):
        built("attnfd", teacher=SignalShapes(5, 8, {"block1": (8, 1, 1)}))
    with pytest.raises(ConfigError, match="other proportions"):
        built("attnfd", teacher=SignalShapes(5, 8, {"block1": (8, 2, 4)}))
    with pytest.raises(ConfigError, match="unknown name 'block9'"):
        built("attnfd", {"blocks": ["block9"]})
