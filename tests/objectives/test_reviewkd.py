from __future__ import annotations

import numpy as np
import pytest
import torch
from golden import golden
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, maps, projected

from pipeline.errors import ConfigError
from pipeline.objectives.maps import hierarchical_contexts
from pipeline.objectives.methods.reviewkd import Fusion
from pipeline.signals import Signals, SignalShapes


def hcl(x: np.ndarray, y: np.ndarray) -> float:
    found, weights = ((x - y) ** 2).mean(), 1.0
    for power, grid in enumerate([g for g in (4, 2, 1) if g < x.shape[2]], start=1):
        found += ((cell_means(x, grid) - cell_means(y, grid)) ** 2).mean() / 2**power
        weights += 1 / 2**power
    return found / weights


def test_levels_by_hand():
    # A checkerboard of ±1 against 0: a squared error of 1 in the whole grid, 0 in the coarser ones, of weight 1/2, 1/4.
    board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)[None, None]
    assert hierarchical_contexts(board, torch.zeros_like(board)).mean().item() == pytest.approx(1 / 1.75)
    assert hierarchical_contexts(board[..., :2, :2], torch.zeros(1, 1, 2, 2)).mean().item() == pytest.approx(1 / 1.5)
    assert hierarchical_contexts(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)).mean().item() == pytest.approx(1)


def test_a_single_cell_is_a_squared_error():
    x, y = torch.randn(2, 4, 7, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(hierarchical_contexts(x, y).mean(), (x - y).square().mean())


@pytest.mark.parametrize("embedding", [True, False])
def test_equals_the_equation_in_float64(embedding: bool):
    objective = built("reviewkd", {"embedding": embedding})
    student, teacher = maps(STUDENT, 5, 1), maps(TEACHER, 5, 2)
    inputs = [(array(student.features[b]), array(teacher.features[b])) for b in ("block2", "block1")]
    if embedding:
        inputs = [(array(student.embedding)[..., None, None], array(teacher.embedding)[..., None, None]), *inputs]
    expected, deeper = 0.0, None
    for level, (s, t) in zip(objective.levels, inputs, strict=True):
        fused = projected(cell_means(s, t.shape[2]), level.inner)
        if deeper is not None:
            enlarged = deeper.repeat(fused.shape[2] // deeper.shape[2], 2).repeat(fused.shape[3] // deeper.shape[3], 3)
            both = np.concatenate([fused, enlarged], axis=1)
            scores = np.einsum("oc,bchw->bohw", array(level.weigh.weight), both)
            a, b = np.moveaxis(1 / (1 + np.exp(-scores - array(level.weigh.bias)[:, None, None])), 1, 0)
            fused = fused * a[:, None] + enlarged * b[:, None]
        expected += hcl(projected(fused, level.outer), t)
        deeper = fused
    assert objective(student, teacher, batch(5), 0.0)["review"].item() == pytest.approx(expected, rel=1e-10)


def test_a_deep_block_reaches_the_teachers_shallow_ones_and_not_the_reverse():
    # The review mechanism: what the student's deep block says is part of every shallower output.
    objective = built("reviewkd", {"embedding": False})
    student, teacher = maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    deep, shallow = objective.levels
    deep_map, shallow_map = (student.features[b].requires_grad_() for b in ("block2", "block1"))
    output, fused = deep(cells(deep_map), None)
    of_shallower, _ = shallow(cells(shallow_map), fused)
    assert torch.autograd.grad(of_shallower.square().sum(), deep_map, retain_graph=True)[0].abs().sum() > 0
    # And the teacher's deep block is met by the student's deep one alone.
    met = hierarchical_contexts(output, teacher.features["block2"]).mean()
    of_deep, of_shallow = torch.autograd.grad(met, [deep_map, shallow_map], retain_graph=True, allow_unused=True)
    assert of_deep.abs().sum() > 0
    assert of_shallow is None
    expected = met + hierarchical_contexts(of_shallower, teacher.features["block1"]).mean()
    torch.testing.assert_close(objective(student, teacher, batch(4), 0.0)["review"], expected)


def cells(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(x, 4)


def test_what_was_fused_can_be_ignored():
    # With weights a = 1, b = 0 the shallower level sees its own block alone.
    level = Fusion(3, 4, 2, deepest=False).double().eval()
    with torch.no_grad():
        level.weigh.weight.zero_()
        level.weigh.bias.copy_(torch.tensor([50.0, -50.0]))
    own = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    _, fused = level(own, torch.randn(2, 4, 1, 1, dtype=torch.float64))
    torch.testing.assert_close(fused, level.inner(own))


def test_golden_values_of_the_reference():
    for case in golden("reviewkd_hcl"):
        case.check(hierarchical_contexts(case.student_map, case.tensor("teacher_map")).mean())


def test_gradient():
    objective, teacher = built("reviewkd"), maps(TEACHER, 3, 2)

    def value(embedding: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        student = Signals(teacher.logits, embedding, {"block1": a, "block2": b})
        return objective(student, teacher, batch(3), 0.0)["review"]

    student = maps(STUDENT, 3, 1)
    leaves = (student.embedding, student.features["block1"], student.features["block2"])
    assert torch.autograd.gradcheck(value, [leaf.requires_grad_() for leaf in leaves], fast_mode=True)


def test_students_of_tokens_and_of_coarser_maps():
    coarse = SignalShapes(5, 6, {"block1": (4, 4, 4), "block2": (6, 2, 2)}, linear=True)
    for shapes in (TOKENS, coarse):
        value = built("reviewkd", student=shapes)(maps(shapes, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["review"]
        assert value.isfinite()


def test_the_width_between_is_the_embeddings_at_most_the_option():
    assert built("reviewkd").levels[0].inner.linear.out_features == 6
    assert built("reviewkd", {"width": 3}).levels[1].inner.linear.out_features == 3


def test_refusals():
    with pytest.raises(ConfigError, match="needs cached features"):
        built("reviewkd", teacher=SignalShapes(5, 8))
    with pytest.raises(ConfigError, match="needs the teacher's embedding"):
        built("reviewkd", teacher=SignalShapes(5, None, {"block2": (8, 4, 4)}))
    alone = SignalShapes(5, None, {"block2": (8, 4, 4)})
    assert built("reviewkd", {"embedding": False}, teacher=alone).needs.teacher == {"features/block2"}
