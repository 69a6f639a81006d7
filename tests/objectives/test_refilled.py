from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.refilled import class_loss, refilled_relation_loss
from pipeline.signals import Signals, SignalShapes

B, CLASSES = 8, 3
LABELS = torch.tensor([0, 1, 2, 0, 1, 0, 2, 0])


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


STUDENT, TEACHER = random(B, 4, seed=1), random(B, 6, seed=2)


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(x) / np.exp(x).sum()


@pytest.mark.parametrize("tuples", [False, True])
@pytest.mark.parametrize("margin", [0.2, 0.8])
def test_relations_equal_the_equation_in_float64(tuples: bool, margin: float):
    s, t = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (STUDENT, TEACHER))

    def distance(f: NDArray[np.float64], a: int, b: int) -> float:
        return float(np.sqrt(((f[a] - f[b]) ** 2).sum()))

    found = []
    for a in range(B):
        for p in range(B):
            if a == p or LABELS[a] != LABELS[p]:
                continue
            others = [n for n in range(B) if LABELS[n] != LABELS[a]]
            semi = [n for n in others if 0 < distance(s, a, n) - distance(s, a, p) <= margin]
            groups = [semi] if tuples and semi else [[n] for n in semi]
            for group in groups:
                q, r = (softmax(np.array([-distance(f, a, x) / 4 for x in [p, *group]])) for f in (s, t))
                found.append((r * np.log(r / q)).sum())
    assert len(found) > 3
    got = refilled_relation_loss(STUDENT, TEACHER, LABELS, margin, 4.0, tuples)
    assert got.item() == pytest.approx(np.mean(found), rel=1e-9)


def test_one_triple_by_hand():
    # Two of a class at 60°, distance 1, and another at 90° to the first, √2; in the teacher 90° and 180°.
    student = torch.tensor([[1.0, 0.0], [0.5, math.sqrt(0.75)], [0.0, -1.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).double()
    p, q = (1 / (1 + math.exp(-x)) for x in (2 - math.sqrt(2), math.sqrt(2) - 1))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    # From the second the other is 150° away, √3.73 - 1 = 0.93 farther than the first: beyond the margin.
    for tuples in (False, True):
        got = refilled_relation_loss(student, teacher, torch.tensor([0, 0, 1]), 0.5, 1.0, tuples)
        assert got.item() == pytest.approx(expected, rel=1e-9)


def test_classes_equal_the_equation_in_float64():
    logits, means = random(B, 5, seed=3), random(5, 6, seed=4)
    total = 0.0
    for b in range(B):
        e = means.numpy() / np.linalg.norm(means.numpy(), axis=1, keepdims=True)
        p = softmax(np.array([TEACHER[b].numpy() @ e[c] / 2 for c in (0, 1, 2)]))  # classes 3 and 4 are not here
        q = softmax(logits[b, :3].numpy() / 2)
        total += (p * np.log(p / q)).sum() / B
    assert class_loss(logits, TEACHER, means, LABELS, 2.0).item() == pytest.approx(total, rel=1e-12)


def test_both_vanish_for_a_student_that_knows_the_teachers_distances_and_classes():
    rotation = torch.linalg.qr(random(6, 6, seed=5)).Q
    assert refilled_relation_loss(3 * TEACHER @ rotation, TEACHER, LABELS, 0.8, 4.0).item() == pytest.approx(
        0, abs=1e-14
    )
    means = random(CLASSES, 6, seed=4)
    logits = TEACHER @ torch.nn.functional.normalize(means, dim=1).T + 7
    assert class_loss(logits, TEACHER, means, LABELS, 2.0).item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("tuples", [False, True])
def test_gradient(tuples: bool):
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: refilled_relation_loss(s, TEACHER, LABELS, 0.8, 4.0, tuples), (student,))
    means, logits = random(CLASSES, 6, seed=4), random(B, CLASSES, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: class_loss(z, TEACHER, means, LABELS, 2.0), (logits,))


@pytest.mark.parametrize("labels", [torch.arange(B), torch.zeros(B, dtype=torch.long)])
def test_without_triples_there_is_nothing_to_learn(labels: torch.Tensor):
    student = STUDENT.clone().requires_grad_()
    loss = refilled_relation_loss(student, TEACHER, labels, 0.8, 4.0)
    assert loss == 0
    loss.backward()
    assert (student.grad == 0).all()


def test_samples_that_are_one_have_finite_gradients():
    student = STUDENT[[0, 1, 2, 0, 1, 0, 2, 0]].float().requires_grad_()
    loss = refilled_relation_loss(student, TEACHER.float(), LABELS, 2.0, 4.0)
    loss.backward()
    assert loss > 0
    assert torch.isfinite(student.grad).all()
    assert student.grad.abs().max() < 1


def test_the_second_part_follows_the_first():
    means = random(CLASSES, 6, seed=4)
    context = Context(B, CLASSES, LABELS, class_means=lambda: means)
    shapes, rows = (SignalShapes(CLASSES, 4), SignalShapes(90, 6)), torch.arange(B)
    said = Signals(random(B, CLASSES, seed=3), STUDENT), Signals(random(B, 90, seed=6), TEACHER)
    objective = build_objective("refilled", {"relation_share": 0.25, "class_weight": 2.0}, *shapes, context)
    first, second = (objective(*said, Batch(LABELS, rows, rows), progress) for progress in (0.2, 0.25))
    assert first.keys() == {"relation"}
    torch.testing.assert_close(first["relation"], 1000 * refilled_relation_loss(STUDENT, TEACHER, LABELS, 0.2, 4.0))
    assert second.keys() == {"classes"}
    torch.testing.assert_close(second["classes"], 2 * class_loss(said[0].logits, TEACHER, means, LABELS, 2.0))


def test_refusals():
    def refused(match: str, student: SignalShapes, labels: torch.Tensor | None):
        with pytest.raises(ConfigError, match=match):
            build_objective("refilled", {}, student, SignalShapes(3, 6), Context(B, CLASSES, labels))

    refused("student's embedding", SignalShapes(CLASSES), LABELS)
    refused("all samples have one label", SignalShapes(CLASSES, 4), torch.zeros(B, dtype=torch.long))
    refused("label for every sample", SignalShapes(CLASSES, 4), None)
