from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, maps, projected
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.methods.msdcrd import decoupled_contrast, feature_contrast, local_samples
from pipeline.signals import Signals, SignalShapes

EQUAL = SignalShapes(5, 8, {"block2": (8, 8, 8)}, linear=True)


def test_windows_and_their_choice_by_hand():
    # Of the four windows of two cells the teacher's largest means are 5 (below, right) and 4 (below, left).
    teacher = torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 4.0, 0.0], [8.0, 4.0, 12.0]]]])
    student = torch.arange(9.0).reshape(1, 1, 3, 3)
    s, t = local_samples(student, teacher, 2, 2)
    assert t.flatten().tolist() == [5, 4]
    assert s.flatten().tolist() == [6, 5]
    s, t = local_samples(student, teacher, 3, 9)
    assert (s.flatten().tolist(), t.flatten().tolist()) == ([4], pytest.approx([28 / 9]))


def test_contrasts_by_hand():
    # Two images, one local sample each, orthogonal: own cosine 1, the other's 0; of the channels likewise.
    x = torch.tensor([[[2.0, 0.0]], [[0.0, 3.0]]])
    expected = math.log1p(math.exp(-2))
    assert decoupled_contrast([x], [x], torch.zeros(2, 2).bool(), 0.5).item() == pytest.approx(expected, rel=1e-5)
    assert feature_contrast([x], [x], 0.5).item() == pytest.approx(expected, rel=1e-5)
    assert feature_contrast([x], [x.flip(0)], 0.5).item() == pytest.approx(expected + 2, rel=1e-5)


def nce(u: list[np.ndarray], v: list[np.ndarray], rivals: list[list[int]], tau: float) -> float:
    u, v = ([x / np.sqrt((x**2).sum()) for x in each] for each in (u, v))
    return float(
        np.mean([-u[i] @ v[i] / tau + np.log(sum(np.exp(u[i] @ v[j] / tau) for j in rivals[i])) for i in range(len(u))])
    )


@pytest.mark.parametrize("shapes", [STUDENT, EQUAL])
def test_equals_the_equation_in_float64(shapes: SignalShapes):
    size, tau, keep, sample = 5, 0.4, 3, [0, 1, 1, 2, 3]
    objective = built("msdcrd", {"temperature": tau, "keep": keep, "feature_weight": 0.5}, student=shapes)
    student, teacher = maps(shapes, size, 1), maps(TEACHER, size, 2)
    s, t = cell_means(array(student.features["block2"]), 4), array(teacher.features["block2"])

    def standard(x: np.ndarray) -> np.ndarray:
        return (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5)

    s, t = (projected(s, objective.of_student) if shapes is STUDENT else standard(s)), standard(t)
    rivals = [[j for j in range(size) if j == b or sample[j] != sample[b]] for b in range(size)]
    by_sample, by_feature = [], []
    for window in (1, 2, 4):
        places = [(y, x) for y in range(5 - window) for x in range(5 - window)]
        local = []
        for b in range(size):
            pairs = [tuple(m[b, :, y : y + window, x : x + window].mean((1, 2)) for m in (s, t)) for y, x in places]
            local.append(sorted(pairs, key=lambda pair: -(pair[1] ** 2).sum())[:keep])
        ranks = range(len(local[0]))
        by_sample += [nce([i[r][0] for i in local], [i[r][1] for i in local], rivals, tau) for r in ranks]
        columns = [np.array([i[r][who] for i in local for r in ranks]).T for who in (0, 1)]
        by_feature.append(nce(list(columns[0]), list(columns[1]), [list(range(8))] * 8, tau))
    got = objective(student, teacher, batch(size, sample=sample), 0.0)
    assert got["sample"].item() == pytest.approx(np.mean(by_sample), rel=1e-10)
    assert got["feature"].item() == pytest.approx(0.5 * np.mean(by_feature), rel=1e-10)


def test_without_parameters_where_widths_are_equal():
    assert not list(built("msdcrd", student=EQUAL).parameters())
    assert list(built("msdcrd").parameters())
    student = teacher = maps(EQUAL, 16, 1)
    equal = built("msdcrd", {"temperature": 0.02}, student=EQUAL, teacher=EQUAL)
    assert equal(student, teacher, batch(16), 0.0)["sample"].item() < 0.05


def test_gradient():
    objective, student, teacher = built("msdcrd"), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    assert gradients_agree(objective, student, teacher, "block2")


def test_empty_maps_have_finite_gradients():
    objective = built("msdcrd").float()
    empty = torch.zeros(3, 6, 8, 8, requires_grad=True)
    silent = Signals(torch.zeros(3, 5), features={"block2": torch.zeros(3, 8, 4, 4)})
    terms = objective(Signals(torch.zeros(3, 5), features={"block2": empty}), silent, batch(3), 0.0)
    sum(terms.values()).backward()
    assert terms["sample"].item() == pytest.approx(math.log(3))
    assert empty.grad.isfinite().all()


def test_a_term_that_is_left_out_is_not_computed():
    objective = built("msdcrd", {"feature_weight": 0})
    assert set(objective(maps(STUDENT, 3, 1), maps(TEACHER, 3, 2), batch(3), 0.0)) == {"sample"}


def test_students_of_tokens_and_refusals():
    value = built("msdcrd", student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["sample"]
    assert value.isfinite()
    with pytest.raises(ConfigError, match=r"msdcrd\.windows: windows must fit into 4 x 4 cells"):
        built("msdcrd", {"windows": [1, 5]})
    with pytest.raises(ConfigError, match="windows must fit"):
        built("msdcrd", {"windows": [0]})
    with pytest.raises(ConfigError, match="other proportions"):
        built("msdcrd", teacher=SignalShapes(5, 8, {"block1": (8, 2, 4)}))
