from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden
from objectives.local import CLASSES, cells, network

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.icd import cluster_losses, scale_weights
from pipeline.signals import Signals

CONTEXT = Context(6, CLASSES)


def batch(size: int = 6) -> Batch:
    rows = torch.arange(size)
    return Batch(torch.full((size,), -1), rows, torch.zeros_like(rows))


def icd(student: Signals, teacher: Signals, **options: object):
    return build_objective("icd", options, student.shapes(), teacher.shapes(), CONTEXT)


def gram(cell: np.ndarray) -> np.ndarray:
    found = np.empty((len(cell), len(cell)))
    for i, one in enumerate(cell):
        for j, other in enumerate(cell):
            found[i, j] = one @ other / np.sqrt(one @ one) / np.sqrt(other @ other)
    return found


@pytest.mark.parametrize("scales", [(1, 2, 4), (1, 4), (2, 4), (2,)])
def test_equals_the_equation_in_float64_over_full_maps(scales: tuple[int, ...]):
    student, full, cached = network(1, 3, 8), network(2, 7, 16), network(2, 7, 16, grid=4)
    gamma, temperature, expected = 3.0, 1.5, 0.0
    omegas = [1 + math.log2(r) for r in scales]
    for omega, scale in zip(omegas, scales, strict=True):
        z, t = cells(student, scale), cells(full, scale)
        for b in range(6):
            p, q = (np.exp(gram(x[b]) / temperature) for x in (t, z))
            p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
            expected += gamma * omega / sum(omegas) * (p * np.log(p / q)).sum() / 6
    objective = icd(student, cached, gamma=gamma, temperature=temperature, scales=scales)
    assert objective(student, cached, batch(), 0.0)["cluster"].item() == pytest.approx(expected, rel=1e-10)


def test_two_cells_by_hand():
    # The teacher's two cells agree, the student's are orthogonal: rows (1/2, 1/2) against softmax(1/τ, 0), twice.
    teacher, student = torch.tensor([[[2.0, 0.0], [5.0, 0.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 1.0]]])
    q = 1 / (1 + math.exp(-0.5))
    row = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    assert cluster_losses(student, teacher, 2.0).mean().item() == pytest.approx(2 * row, rel=1e-5)


def test_weights_are_the_codes():
    assert scale_weights((1, 2)) == pytest.approx([1 / 3, 2 / 3])
    assert scale_weights((1, 4)) == pytest.approx([1 / 4, 3 / 4])
    assert scale_weights((1, 2, 4)) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_the_single_cell_contributes_nothing():
    student, teacher = network(1, 3, 8), network(2, 7, 8, grid=4)
    with_it, without = (
        icd(student, teacher, scales=scales)(student, teacher, batch(), 0.0)["cluster"] for scales in ([1, 2], [2])
    )
    torch.testing.assert_close(with_it, without * 2 / 3)
    with pytest.raises(ConfigError, match="not 1 alone"):
        icd(student, teacher, scales=[1])


def test_nothing_but_angles_counts():
    # Logits of any length and in any rotation of the classes tell the same clusters.
    generator = torch.Generator().manual_seed(0)
    cell = torch.randn(4, 16, 5, generator=generator, dtype=torch.float64)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    lengths = torch.rand(4, 16, 1, generator=generator, dtype=torch.float64) + 0.1
    assert cluster_losses(cell @ rotation * lengths, cell, 2.0).mean().item() == pytest.approx(0, abs=1e-12)


def test_golden_values_of_the_reference():
    for case in golden("icd"):
        case.check_objective("icd", case.options)


def test_gradient():
    cell = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student, teacher = cell[0].requires_grad_(), cell[1]
    assert torch.autograd.gradcheck(lambda s: cluster_losses(s, teacher, 2.0).mean(), (student,))
