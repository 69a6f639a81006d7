from __future__ import annotations

import pytest
import torch
from objectives.layers import cell_means, projected
from objectives.maps import CONTEXT, built, gradients_agree, network, value
from torch.nn.functional import mse_loss

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.signals import Signals, SignalShapes
from pipeline.signals.lowpass import lowpass

STUDENT, TEACHER = ((3, 16), (5, 8), (6, 4)), ((4, 16), (7, 16), (9, 8))


def test_two_cells_by_hand():
    student, teacher = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, -1.0]]]])
    assert mse_loss(student, teacher).item() == pytest.approx((4 + 9) / 2)


def test_equals_the_equation_in_float64():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("fitnet", student, teacher)
    expected = 0.0
    regressed = projected(cell_means(student.features["block2"], 4), objective.regressors[0])
    target = teacher.features["block2"].numpy()
    for index in range(target.size):
        expected += (regressed.flat[index] - target.flat[index]) ** 2 / target.size
    assert value(objective, student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_several_hints_are_summed():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("fitnet", student, teacher, blocks=["block1", "block3"])
    expected = sum(
        mse_loss(regressor(lowpass(student.features[block], 4)), teacher.features[block])
        for regressor, block in zip(objective.regressors, ("block1", "block3"), strict=True)
    )
    torch.testing.assert_close(value(objective, student, teacher), expected)


def test_regressing_the_low_frequencies_gives_the_low_frequencies_of_the_regressed_map():
    # Why r is linear: with statistics fixed, the same r is learnt from the cache as from full maps.
    student, teacher = network(1, *STUDENT), network(2, *TEACHER)
    regressor = built("fitnet", student, teacher).regressors[0].eval()
    maps = student.features["block2"]
    torch.testing.assert_close(lowpass(regressor(maps), 4), regressor(lowpass(maps, 4)))


def test_low_passed_errors_are_never_larger():
    student, teacher = network(1, *STUDENT), network(2, (4, 8), (5, 8), (9, 8))
    full, target = student.features["block2"], teacher.features["block2"]
    for name in ("mean", "dct"):
        low = mse_loss(lowpass(full, 4, name), lowpass(target, 4, name))
        assert low < mse_loss(full, target)


def test_nothing_is_left_where_a_linear_map_and_a_norm_explain_the_teacher():
    student = network(1, *STUDENT)
    objective = built("fitnet", student, network(2, *TEACHER, grid=4))
    teacher = Signals(
        student.logits, features={"block2": objective.regressors[0](lowpass(student.features["block2"], 4))}
    )
    assert value(objective, student, teacher).item() == pytest.approx(0, abs=1e-24)


def test_a_student_that_is_coarser_than_the_cached_grid():
    student, teacher = network(1, (3, 8), (5, 2)), network(2, (4, 8), (6, 8), grid=4)
    objective = built("fitnet", student, teacher)
    regressed = objective.regressors[0](student.features["block2"])
    expected = mse_loss(regressed, lowpass(teacher.features["block2"], 2))
    torch.testing.assert_close(value(objective, student, teacher), expected)


def test_one_sample_of_one_cell_has_no_statistics_and_uses_the_running_ones():
    student, teacher = network(1, (3, 1), (5, 1), batch=1), network(2, (4, 1), (6, 1), batch=1)
    objective = built("fitnet", student, teacher)
    assert torch.isfinite(value(objective, student, teacher))
    assert torch.equal(objective.regressors[0].norm.running_mean, torch.zeros(6, dtype=torch.float64))


def test_gradient():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    assert gradients_agree(built("fitnet", student, teacher).eval(), student, teacher, "block2")


def test_refusals():
    shapes, wide = (SignalShapes(3, features={"block3": shape}) for shape in ((4, 4, 4), (4, 8, 2)))
    with pytest.raises(ConfigError, match=r"fitnet\.blocks: unknown name 'block2'"):
        build_objective("fitnet", {}, shapes, shapes, CONTEXT)
    with pytest.raises(ConfigError, match=r"other proportions\n  got: 8 x 2 and 4 x 4\n  do: leave block3 out"):
        build_objective("fitnet", {"blocks": ["block3"]}, wide, shapes, CONTEXT)
    with pytest.raises(ConfigError, match="add `features"):
        build_objective("fitnet", {}, shapes, SignalShapes(3), CONTEXT)
