from __future__ import annotations

import pytest
import torch
from golden import golden
from objectives.layers import Array, cell_means
from objectives.maps import CONTEXT, SIZE, built, gradients_agree, network, value

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.methods.nst import selectivity_losses
from pipeline.signals import SignalShapes

STUDENT, TEACHER = ((3, 8), (5, 8)), ((4, 16), (20, 16))


def discrepancy(student: Array, teacher: Array) -> float:
    """Of the patterns of one sample, [C, h, w] each, channel by channel."""
    s, t = ([f.ravel() / (f**2).sum() ** 0.5 for f in maps] for maps in (student, teacher))

    def mean(one: list[Array], other: list[Array]) -> float:
        return sum(float(x @ y) ** 2 for x in one for y in other) / len(one) / len(other)

    return mean(t, t) + mean(s, s) - 2 * mean(s, t)


def test_two_patterns_by_hand():
    # The teacher's two neurons respond to two places, the student's one to both: 1/2 + 1 - 2 · 1/2.
    teacher, student = torch.tensor([[[[2.0, 0.0]], [[0.0, 5.0]]]]), torch.tensor([[[[3.0, 3.0]]]])
    assert selectivity_losses(student, teacher).mean().item() == pytest.approx(0.5, rel=1e-6)


@pytest.mark.parametrize("grid", [2, 4])
def test_equals_the_equation_in_float64_on_means(grid: int):
    # With 4 and 16 places and 3 to 20 channels, both forms are computed.
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=grid)
    expected = 0.0
    for block in ("block1", "block2"):
        s, t = (cell_means(signals.features[block], grid) for signals in (student, full))
        expected += sum(discrepancy(s[b], t[b]) for b in range(SIZE)) / SIZE
    assert value(built("nst", student, cached), student, cached).item() == pytest.approx(expected, rel=1e-10)


def test_order_and_strength_of_neurons_do_not_count():
    maps = network(1, (6, 4)).features["block1"]
    strength = torch.rand(6, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    assert selectivity_losses((maps * strength).flip(1), maps).mean().item() == pytest.approx(0, abs=1e-14)
    twice = torch.cat((maps, maps), dim=1)
    assert selectivity_losses(twice, maps).mean().item() == pytest.approx(0, abs=1e-14)


def test_golden_values_of_the_reference():
    for case in golden("nst"):
        case.check_objective("nst", case.options, grid=8)


def test_dead_neurons_have_no_gradient():
    maps, teacher = network(1, (4, 4)).features["block1"], network(2, (4, 4)).features["block1"]
    maps[:, 1] = 0
    (gradient,) = torch.autograd.grad(selectivity_losses(maps.requires_grad_(), teacher).mean(), maps)
    assert not gradient[:, 1].any()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("grid", [2, 4])
def test_gradient(grid: int):
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=grid)
    assert gradients_agree(built("nst", student, teacher), student, teacher, "block1", "block2")


def test_one_cell_is_refused():
    shapes, point = (SignalShapes(3, features={"block1": (4, size, size)}) for size in (4, 1))
    with pytest.raises(ConfigError, match=r"compares 2 places of a map or more, and block1 has 1 x 1 here"):
        build_objective("nst", {}, shapes, point, CONTEXT)
    with pytest.raises(ConfigError, match="1 x 1"):
        build_objective("nst", {}, point, shapes, CONTEXT)
