from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, maps, projected, total

from pipeline.errors import ConfigError
from pipeline.objectives import Context, kl_divergence
from pipeline.objectives.methods.hcd import distilled, orthogonality, rectified
from pipeline.signals import Signals, SignalShapes


def test_a_correction_by_hand():
    # The teacher gives three to one to the wrong class; the part says three times as much for the right one: even.
    teacher, part = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[[1.0, 3.0]]]).log()
    assert rectified(part, teacher, torch.tensor([1])).item() == pytest.approx(math.log(2))
    even = distilled(torch.zeros(1, 2), part, teacher, 2.0)
    assert even.item() == pytest.approx(0, abs=1e-6)


def test_angles_by_hand():
    # Of three directions two are parallel and the third is at 45 degrees: squared cosines 1, 1/2, 1/2.
    parts = torch.tensor([[[1.0, 0.0], [-2.0, 0.0], [3.0, 3.0]]])
    assert orthogonality(parts).item() == pytest.approx(2 / 3)
    assert orthogonality(torch.eye(3)[None]).item() == pytest.approx(0)
    zero = torch.zeros(2, 3, 4, requires_grad=True)
    orthogonality(zero).sum().backward()
    assert zero.grad.isfinite().all()


def softmax(x: np.ndarray) -> np.ndarray:
    return np.exp(x - x.max()) / np.exp(x - x.max()).sum()


def test_equals_the_equations_in_float64():
    size, n, temperature = 5, 3, 2.5
    objective = built("hcd", {"parts": n, "temperature": temperature, "orthogonality": 0.5, "grid": 8})
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    assert objective.block == "block1"
    seen = np.maximum(projected(cell_means(array(student.features["block1"]), 8), objective.projector[0]), 0)
    f = array(teacher.embedding)
    known = (f - f.mean(0)) / np.sqrt(f.var(0) + 1e-5)
    joined = np.concatenate([seen.mean((2, 3)), known], axis=1)
    parts = (joined @ array(objective.mapper.weight).T + array(objective.mapper.bias)).reshape(size, n, 5)
    expected = {"rectified": 0.0, "distilled": 0.0, "orthogonality": 0.0}
    z, t = array(student.logits), array(teacher.logits)
    for b in range(size):
        for i in range(n):
            fused = t[b] + parts[b, i]
            expected["rectified"] -= np.log(softmax(fused)[b % 5]) / size / n
            p, q = softmax(fused / temperature), softmax(z[b] / temperature)
            expected["distilled"] += temperature**2 * (p * np.log(p / q)).sum() / size / n
            for j in range(i):
                u, v = parts[b, i], parts[b, j]
                expected["orthogonality"] += 0.5 * (u @ v) ** 2 / (u @ u) / (v @ v) / size / (n * (n - 1) / 2)
    got = objective(student, teacher, batch(size), 0.0)
    assert {name: value.item() for name, value in got.items()} == pytest.approx(expected, rel=1e-9)


def test_parts_that_say_nothing_leave_kd():
    z, t = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    silent = torch.zeros(4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(distilled(z, silent, t, 4.0), kl_divergence(z, t, 4.0))


def test_the_students_logits_learn_from_corrected_ones_and_correct_nothing():
    objective, student = built("hcd"), maps(STUDENT, 4, 1)
    block, logits = student.features["block1"].requires_grad_(), student.logits.requires_grad_()
    terms = objective(student, maps(TEACHER, 4, 2), batch(4), 0.0)
    (of_block,) = torch.autograd.grad(terms["distilled"], block, retain_graph=True, allow_unused=True)
    (of_logits,) = torch.autograd.grad(terms["rectified"], logits, retain_graph=True, allow_unused=True)
    assert of_block is None
    assert of_logits is None
    assert torch.autograd.grad(terms["rectified"], block)[0].abs().sum() > 0


def test_gradient():
    objective, teacher, student = built("hcd"), maps(TEACHER, 3, 2), maps(STUDENT, 3, 1)

    def rest(logits: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
        terms = objective(Signals(logits, features={"block1": block}), teacher, batch(3), 0.0)
        return terms["rectified"] + terms["orthogonality"]

    leaves = [leaf.requires_grad_() for leaf in (student.logits, student.features["block1"])]
    # `distilled` takes the fused logits for constants: its gradient is checked for the logits alone.
    assert torch.autograd.gradcheck(lambda block: rest(leaves[0], block), leaves[1:], fast_mode=True)
    parts = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(lambda z: distilled(z, parts, teacher.logits, 2.0), leaves[:1])


def test_one_part_has_no_angles_and_the_block_is_the_students():
    one = built("hcd", {"parts": 1})(maps(STUDENT, 3, 1), maps(TEACHER, 3, 2), batch(3), 0.0)
    assert set(one) == {"rectified", "distilled"}
    assert built("hcd", student=TOKENS).block == "block3"
    assert total(built("hcd", student=TOKENS)(maps(TOKENS, 3, 1), maps(TEACHER, 3, 2), batch(3), 0.0)).isfinite()
    assert built("hcd", {"block": "block2"}).needs.student == {"logits", "features/block2"}
    vectors = SignalShapes(5, 8, linear=True)  # maps of the teacher are not read
    assert built("hcd", teacher=vectors).needs.teacher == {"logits", "embedding"}


def test_refusals():
    with pytest.raises(ConfigError, match=r"hcd\.block: unknown name 'block7'"):
        built("hcd", {"block": "block7"})
    with pytest.raises(ConfigError, match="needs the teacher's embedding"):
        built("hcd", teacher=SignalShapes(5, None, TEACHER.features))
    with pytest.raises(ConfigError, match="same classes"):
        built("hcd", teacher=SignalShapes(7, 8))
    with pytest.raises(ConfigError, match="label for every sample"):
        built("hcd", context=Context(3, 5, torch.tensor([0, -1, 2])))
    with pytest.raises(ConfigError, match="needs a map of the student"):
        built("hcd", student=SignalShapes(5, 6))
