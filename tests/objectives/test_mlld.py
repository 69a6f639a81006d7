from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError, TrainingError
from pipeline.objectives import Batch, Context, Objective, build_objective, kl_divergence
from pipeline.objectives.methods.mlld import levels
from pipeline.signals import Signals, SignalShapes

SHAPES = SignalShapes(logits=5)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def mlld(views: int = 2, **options: object) -> Objective:
    return build_objective("mlld", options, SHAPES, SHAPES, Context(9, 5, views_per_step=views))


def batch(*sample: int) -> Batch:
    rows = torch.tensor(sample)
    return Batch(torch.full_like(rows, -1), rows, torch.arange(len(rows)))


def test_one_sample_of_two_classes_by_hand():
    # The teacher says 1 : 1, the student 3 : 1. Of the batch, p·p is 1/2 and 5/8; of the classes, p pᵀ is 1/4
    # everywhere and (9, 3, 3, 1) / 16.
    teacher, student = torch.tensor([[[1.0, 1.0]]]).log(), torch.tensor([[[3.0, 1.0]]]).log()
    values = [value.item() for value in levels(student, teacher, 1.0)]
    instance = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert values == pytest.approx([instance, 1 / 64, (25 + 1 + 1 + 9) / 256 / 2], rel=1e-5)


@pytest.mark.parametrize("views", [2, 3])
def test_equals_the_equation_in_float64(views: int):
    z, t = random(2, 4 * views, 5)
    temperatures = (1.0, 4.0)
    instance = of_batch = of_classes = 0.0
    for temperature in temperatures:
        for view in range(views):
            rows = [sample * views + view for sample in range(4)]
            p, q = (np.exp(x[rows].numpy() / temperature) for x in (t, z))
            p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
            instance += temperature**2 * (p * np.log(p / q)).sum() / 4 / views
            for i in range(4):
                for j in range(4):
                    of_batch += (p[i] @ p[j] - q[i] @ q[j]) ** 2 / 4 / views
            for c in range(5):
                for d in range(5):
                    of_classes += (p[:, c] @ p[:, d] - q[:, c] @ q[:, d]) ** 2 / 5 / views
    sample = [s for s in (7, 2, 0, 5) for _ in range(views)]
    got = mlld(views, temperatures=temperatures)(Signals(z), Signals(t), batch(*sample), 0.0)
    assert got["instance"].item() == pytest.approx(instance, rel=1e-10)
    assert got["batch"].item() == pytest.approx(of_batch, rel=1e-10)
    assert got["class"].item() == pytest.approx(of_classes, rel=1e-10)


def test_the_instance_level_is_kd_at_each_temperature():
    z, t = random(2, 6, 5)
    got = mlld(temperatures=[2.0, 4.0])(Signals(z), Signals(t), batch(0, 0, 1, 1, 2, 2), 0.0)
    expected = kl_divergence(z, t, 2.0).mean() + kl_divergence(z, t, 4.0).mean()
    torch.testing.assert_close(got["instance"], expected)


def test_the_batch_level_does_not_know_classes_nor_the_class_level_samples():
    t = random(2, 4, 5)
    renamed, shuffled = t[:, :, [3, 0, 4, 1, 2]], t[:, [2, 0, 3, 1]]
    instance, of_batch, of_classes = (value.item() for value in levels(renamed, t, 2.0))
    assert of_batch == pytest.approx(0, abs=1e-14)
    assert min(instance, of_classes) > 1e-3
    instance, of_batch, of_classes = (value.item() for value in levels(shuffled, t, 2.0))
    assert of_classes == pytest.approx(0, abs=1e-14)
    assert min(instance, of_batch) > 1e-3


def test_it_is_least_where_student_and_teacher_agree():
    t = random(4, 5)
    z = t.clone().requires_grad_()
    terms = mlld()(Signals(z), Signals(t), batch(0, 0, 1, 1), 0.0)
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-20)
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-12


def test_gradient():
    z, t = random(2, 2, 3, 4)
    assert torch.autograd.gradcheck(lambda s: torch.stack(levels(s, t, 2.0)), (z.requires_grad_(),))


def test_one_view_of_each_sample_is_refused_by_the_line_to_change():
    with pytest.raises(ConfigError, match="needs 2 views of every sample in a batch") as error:
        mlld(views=1)
    assert "set `train.views_per_step: 2`" in str(error.value)


@pytest.mark.parametrize("sample", [(0,), (0, 1), (0, 1, 0, 1), (0, 0, 1)])
def test_a_batch_without_pairs_is_refused(sample: tuple[int, ...]):
    z = random(len(sample), 5)
    with pytest.raises(TrainingError, match="mlld needs several views of every sample") as error:
        mlld()(Signals(z), Signals(z), batch(*sample), 0.0)
    assert "do: set `train.views_per_step: 2`" in str(error.value)


def test_refuses_networks_of_different_classes_and_no_temperature():
    context = Context(3, 5, views_per_step=2)
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("mlld", {}, SHAPES, SignalShapes(logits=7), context)
    for wrong in ([], [0.0]):
        with pytest.raises(ConfigError, match="temperatures"):
            mlld(temperatures=wrong)
