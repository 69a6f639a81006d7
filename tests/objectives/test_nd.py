from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.nd import norm_and_direction
from pipeline.signals import Signals, SignalShapes


def three(batch: int = 6) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(3, batch, 4, generator=generator, dtype=torch.float64))


def test_equals_the_equation_in_float64():
    student, teacher, means = three()
    expected = []
    for s, t, e in zip(student.numpy(), teacher.numpy(), means.numpy(), strict=True):
        longer = max(np.sqrt(s @ s), np.sqrt(t @ t))
        expected.append(1 - s @ e / np.sqrt(e @ e) / longer)
    np.testing.assert_allclose(norm_and_direction(student, teacher, means), expected, rtol=1e-12)


def test_by_hand():
    # Along (3, 4): short of the teacher's 10 by half; longer than it, at cos = 24/25; against it.
    student = torch.tensor([[3.0, 4.0], [4.0, 3.0], [-3.0, -4.0]])
    teacher = torch.tensor([[10.0, 0.0], [1.0, 0.0], [0.0, 5.0]])
    means = torch.tensor([[6.0, 8.0]]).expand(3, 2)
    torch.testing.assert_close(norm_and_direction(student, teacher, means), torch.tensor([0.5, 0.04, 2.0]))


def test_longer_students_are_asked_for_direction_alone_and_shorter_ones_for_length_too():
    student, _, means = three()
    cosine = 1 - torch.nn.functional.cosine_similarity(student, means)
    for factor in (2.0, 5.0):
        longer = norm_and_direction(factor * student, student, means)
        torch.testing.assert_close(longer, cosine, rtol=1e-12, atol=1e-12)
    shorter = norm_and_direction(student / 4, student, means)
    torch.testing.assert_close(1 - shorter, (1 - cosine) / 4, rtol=1e-12, atol=1e-12)


def test_golden_values_of_the_reference():
    for case in golden("nd"):
        case.check_objective("nd", case.options)


def test_gradient():
    student, teacher, means = three(3)
    student.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: norm_and_direction(s, teacher, means), (student,))


def test_vectors_of_no_length_have_finite_gradients():
    student = torch.zeros(3, 4, requires_grad=True)
    loss = norm_and_direction(student, torch.zeros(3, 4), torch.zeros(3, 4))
    assert torch.equal(loss, torch.ones(3))
    loss.sum().backward()
    assert torch.isfinite(student.grad).all()


def test_the_means_are_asked_for_once_and_the_students_width_is_adapted():
    asked = []

    def means() -> torch.Tensor:
        asked.append(1)
        return torch.eye(3, 9)

    shapes, rows = (SignalShapes(3, 4), SignalShapes(3, 9)), torch.arange(3)
    objective = build_objective("nd", {}, *shapes, Context(3, 3, rows, class_means=means))
    assert not asked  # there may be no cache yet
    said = [Signals(torch.zeros(3, 3), torch.randn(3, shape.embedding)) for shape in shapes]
    for _ in range(2):
        got = objective(*said, Batch(rows, rows, rows), 0.0)["direction"]
    assert len(asked) == 1
    adapted = objective.adapter(said[0].embedding)
    torch.testing.assert_close(got, norm_and_direction(adapted, said[1].embedding, torch.eye(3, 9)).mean())


def test_refusals():
    with pytest.raises(ConfigError, match="label for every sample"):
        build_objective("nd", {}, SignalShapes(3, 4), SignalShapes(3, 4), Context(3, 3))
    with pytest.raises(ConfigError, match="teacher's embedding"):
        build_objective("nd", {}, SignalShapes(3, 4), SignalShapes(3), Context(3, 3, torch.arange(3)))
