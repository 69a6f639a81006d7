from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import golden
from objectives.layers import cell_means
from objectives.maps import CONTEXT, SIZE, built, gradients_agree, network, value

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.methods.sp import similarity_loss
from pipeline.signals import SignalShapes

STUDENT, TEACHER = ((3, 8), (5, 8)), ((4, 16), (7, 16))


def test_two_samples_by_hand():
    # The teacher's samples are orthogonal, the student's are one: rows (1, 0), (0, 1) against (1, 1) / √2, twice.
    teacher, student = torch.eye(2)[:, :, None, None] * 3, torch.full((2, 5, 1, 1), 0.7)
    half = 0.5**0.5
    assert similarity_loss(student, teacher).item() == pytest.approx(2 * ((1 - half) ** 2 + half**2) / 4, rel=1e-6)


@pytest.mark.parametrize("blocks", [None, ("block1", "block2")])
def test_equals_the_equation_in_float64_on_means(blocks: tuple[str, ...] | None):
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=4)
    expected = 0.0
    for block in blocks or ("block2",):
        grams = []
        for signals in (student, full):
            q, g = cell_means(signals.features[block], 4), np.empty((SIZE, SIZE))
            for i in range(SIZE):
                for j in range(SIZE):
                    g[i, j] = (q[i] * q[j]).sum()
            grams.append(np.array([row / np.sqrt((row * row).sum()) for row in g]))
        expected += ((grams[0] - grams[1]) ** 2).sum() / SIZE**2
    objective = built("sp", student, cached, blocks=blocks)
    assert value(objective, student, cached).item() == pytest.approx(expected, rel=1e-10)


def test_whatever_keeps_angles_between_samples_changes_nothing():
    # Maps rotated and scaled, of every sample alike.
    maps = network(1, (4, 4)).features["block1"]
    rotation = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).Q
    turned = (3 * maps.flatten(1) @ rotation)[..., None, None]
    assert similarity_loss(turned, maps).item() == pytest.approx(0, abs=1e-24)


def test_one_sample_is_only_like_itself():
    student, teacher = network(1, (3, 4), batch=1), network(2, (4, 4), batch=1)
    assert value(built("sp", student, teacher), student, teacher).item() == 0


def test_a_sample_of_zeros_has_a_gradient_of_ordinary_size():
    teacher = network(2, (4, 4)).features["block1"]
    maps = network(1, (4, 4)).features["block1"]
    maps[0] = 0
    (gradient,) = torch.autograd.grad(similarity_loss(maps.requires_grad_(), teacher), maps)
    assert gradient.abs().max() < 10


def test_golden_values_of_the_reference():
    for case in golden("sp"):
        case.check_objective("sp", case.options, grid=8)


def test_gradient():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    assert gradients_agree(built("sp", student, teacher), student, teacher, "block2")


def test_needs_and_refusals():
    shapes = SignalShapes(3, features={"block1": (4, 8, 8), "block2": (4, 4, 4)})
    assert build_objective("sp", {}, shapes, shapes, CONTEXT).needs.teacher == {"features/block2"}
    with pytest.raises(ConfigError, match=r"sp\.blocks: unknown name 'blok2'"):
        build_objective("sp", {"blocks": ["blok2"]}, shapes, shapes, CONTEXT)
    with pytest.raises(ConfigError, match="add `features"):
        build_objective("sp", {}, shapes, SignalShapes(3), CONTEXT)
