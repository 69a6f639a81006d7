from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Neighbours, ObjectiveEntry, ObjectiveSet, build_objective
from pipeline.objectives.methods.coss import coss_losses
from pipeline.objectives.set import KnownTeacher
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(3, 4), SignalShapes(3, 5)


def pair(batch: int = 6, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(batch, width, generator=generator, dtype=torch.float64)
    return s, torch.randn(batch, width, generator=generator, dtype=torch.float64) + s


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(sum(x * x) * sum(y * y))


def test_equals_the_equation_in_float64():
    s, t = (x.numpy() for x in pair())
    feature, space = coss_losses(*pair())
    assert feature.item() == pytest.approx(1 - np.mean([cosine(s[b], t[b]) for b in range(6)]), rel=1e-12)
    assert space.item() == pytest.approx(1 - np.mean([cosine(s[:, d], t[:, d]) for d in range(5)]), rel=1e-12)


def test_two_samples_by_hand():
    # Rows at right angles and alike; columns (1, 0) with (0, 0), a right angle, and (0, 2) with (3, 2).
    feature, space = coss_losses(torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[0, 3.0], [0, 2.0]]))
    assert feature.item() == pytest.approx(0.5)
    assert space.item() == pytest.approx(1 - (0 + 2 / math.sqrt(13)) / 2)


def test_each_term_is_blind_to_one_scale_and_both_together_to_one_factor_for_all():
    s, _ = pair()
    lengths, scales = torch.arange(1.0, 7).double()[:, None], torch.arange(1.0, 6).double()
    feature, space = coss_losses(lengths * s, s)
    assert abs(feature) < 1e-12
    assert space > 1e-3
    feature, space = coss_losses(scales * s, s)
    assert abs(space) < 1e-12
    assert feature > 1e-3
    assert all(abs(each) < 1e-12 for each in coss_losses(3 * s, s))


def test_rows_and_columns_change_places_with_the_terms():
    s, t = pair()
    torch.testing.assert_close(coss_losses(s.T, t.T), coss_losses(s, t)[::-1])


def test_gradient():
    s, t = pair()
    assert torch.autograd.gradcheck(lambda x: coss_losses(x, t), (s.requires_grad_(),))


@pytest.mark.parametrize("batch", [1, 6])
def test_vectors_of_zeros_have_finite_gradients(batch: int):
    s, t = pair(batch)
    s[0] = 0
    t[:, 2] = 0
    s.requires_grad_()
    sum(coss_losses(s, t)).backward()
    assert s.grad.abs().max() < 10


def test_the_projection_and_the_weight():
    torch.manual_seed(0)
    objective = build_objective("coss", {"space_weight": 3.0}, *SHAPES, Context(6, 3)).double()
    (s, t), rows = (pair(width=4)[0], pair()[1]), torch.arange(6)
    terms = objective(Signals(rows, s), Signals(rows, t), Batch(rows, rows, rows), 0.0)
    expected = coss_losses(objective.projector(s), t)
    torch.testing.assert_close([terms["feature"], terms["space"]], [expected[0], 3 * expected[1]])


def built_set(*entries: dict[str, object]) -> ObjectiveSet:
    bound, context = [ObjectiveEntry.model_validate(entry) for entry in entries], Context(6, 3)
    return ObjectiveSet("t", bound, *SHAPES, context, {"clip": KnownTeacher(SHAPES[1], context)})


def test_what_a_batch_is_to_have():
    assert built_set({"name": "coss"}, {"name": "kd"}).needs.neighbours == Neighbours(15, 31)
    assert built_set({"name": "coss", "neighbours": 0}).needs.neighbours is None
    assert built_set({"name": "coss", "teacher": "clip"}).needs.neighbours == Neighbours(15, 31, "clip")


def test_refusals():
    with pytest.raises(ConfigError, match="student's embedding"):
        build_objective("coss", {}, SignalShapes(3), SHAPES[1], Context(6, 3))
    with pytest.raises(ConfigError, match="at least `neighbours`, 40"):
        build_objective("coss", {"neighbours": 40}, *SHAPES, Context(6, 3))
    with pytest.raises(ConfigError) as error:
        built_set({"name": "coss"}, {"name": "coss", "label": "b", "teacher": "clip"}, {"name": "coss", "label": "c"})
    assert [problem.key for problem in error.value.problems] == ["objectives.t.1"]
    assert "15 of the 31 nearest of 'clip'" in str(error.value)
