from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.ckd import sample_contrast
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def test_two_samples_by_hand():
    # The first teacher's row is the first student's; the second teacher's row is orthogonal to both.
    student = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    teacher = torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 7.0]])
    values = sample_contrast(student, teacher, torch.arange(2), 0.5)
    assert values.tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(2)], rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_equals_the_equation_in_float64(temperature: float):
    z, t = random(2, 6, 5)
    sample = torch.tensor([4, 1, 4, 0, 7, 1])  # two samples have two views each
    total = 0.0
    for i in range(6):
        scores = []
        for j in range(6):
            a, b = t[i].numpy(), z[j].numpy()
            if i == j or sample[i] != sample[j]:
                scores.append(a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) / temperature)
            if i == j:
                own = scores[-1]
        total += np.log(np.exp(scores).sum()) - own
    objective = build_objective("ckd", {"temperature": temperature}, SHAPES, SHAPES, Context(8, 5))
    got = objective(Signals(z), Signals(t), Batch(sample, sample, sample), 0.0)["contrast"]
    assert got.item() == pytest.approx(total / 6, rel=1e-10)


def test_its_floor_is_reached_by_opposite_vectors_only():
    # Two samples whose vectors are opposite are as far apart as cosines can be.
    z = torch.tensor([[1.0, 2.0], [-1.0, -2.0]], dtype=torch.float64)
    floor = math.log(1 + math.exp(-2))
    assert sample_contrast(z, 3 * z, torch.arange(2), 1.0).tolist() == pytest.approx([floor, floor], rel=1e-12)
    assert sample_contrast(random(9, 5), random(9, 5, seed=1), torch.arange(9), 1.0).min() > math.log(
        1 + 8 * math.exp(-2)
    )


def test_lengths_do_not_count():
    z, t = random(2, 6, 5)
    length = torch.rand(6, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) + 0.1
    rows = torch.arange(6)
    torch.testing.assert_close(sample_contrast(z * length, t, rows, 1.0), sample_contrast(z, t / length, rows, 1.0))


def test_views_of_one_sample_alone_have_nothing_to_be_told_from():
    z, t = random(2, 3, 5)
    assert sample_contrast(z, t, torch.zeros(3), 1.0).tolist() == pytest.approx([0, 0, 0], abs=1e-12)


def test_logits_of_zeros_have_a_small_gradient():
    """As of a student whose classifier begins at zero: a small constant in the denominator makes it 10¹² as large."""
    z = torch.zeros(4, 5, requires_grad=True)
    sample_contrast(z, random(4, 5).float(), torch.arange(4), 1.0).mean().backward()
    assert z.grad is not None
    assert 0 < z.grad.abs().max() < 10


def test_gradient():
    z, t = random(2, 4, 5)
    sample = torch.tensor([0, 0, 1, 2])
    assert torch.autograd.gradcheck(lambda s: sample_contrast(s, t, sample, 0.5), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("ckd"):
        case.check_objective("ckd", case.options)


def test_refuses_networks_of_different_classes():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("ckd", {}, SHAPES, SignalShapes(logits=7), Context(3, 5))
