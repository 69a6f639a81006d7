from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, convolved, maps, projected

from pipeline.errors import ConfigError
from pipeline.objectives.methods.semckd import block_attention, likeness
from pipeline.signals import Signals, SignalShapes


def test_attention_by_hand():
    # One query along the first of two orthogonal keys, at temperature 1/2: e² to 1, whatever the lengths.
    found = block_attention(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 7.0]]]), 0.5)
    torch.testing.assert_close(found, torch.tensor([[[math.exp(2), 1.0]]]) / (math.exp(2) + 1))


def test_quantiles_by_hand():
    # Numbers 1, 2, 4: the products of the first are 1, 2, 4, of the last 4, 8, 16. Halves lie between neighbours.
    found = likeness(torch.tensor([[1.0], [2.0], [4.0]]), 5)
    assert found[0].tolist() == [1, 1.5, 2, 3, 4]
    assert found[2].tolist() == [4, 6, 8, 12, 16]
    assert likeness(torch.tensor([[3.0, 1.0]]), 3).tolist() == [[5, 5, 5]]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_quantiles_are_numpys(size: int):
    x = np.random.default_rng(0).normal(size=(size, 3, 2, 2))
    rows = [[(a * b).mean() for b in x] for a in x]
    expected = np.quantile(rows, np.linspace(0, 1, 6), axis=1).T
    np.testing.assert_allclose(likeness(torch.from_numpy(x), 6).numpy(), expected, rtol=1e-12)


def through(x: np.ndarray, network: torch.nn.Module) -> np.ndarray:
    hidden = np.maximum(x @ array(network[0].weight).T + array(network[0].bias), 0)
    found = hidden @ array(network[2].weight).T + array(network[2].bias)
    return found / np.sqrt((found**2).sum(1, keepdims=True))


def test_equals_the_equation_in_float64():
    tau, size = 0.3, 5
    objective = built("semckd", {"temperature": tau, "quantiles": 4, "attention_width": 3})
    student, teacher = maps(STUDENT, size, 1), maps(TEACHER, size, 2)
    own = [cell_means(array(x), 4) for x in student.features.values()]
    theirs = [array(x) for x in teacher.features.values()]

    def told(x: np.ndarray) -> np.ndarray:
        rows = np.array([[(a * b).mean() for b in x] for a in x])
        return np.quantile(rows, np.linspace(0, 1, 4), axis=1).T

    q = [through(told(x), network) for x, network in zip(own, objective.queries, strict=True)]
    k = [through(told(x), network) for x, network in zip(theirs, objective.keys, strict=True)]
    expected = 0.0
    for i in range(2):
        for b in range(size):
            scores = np.exp([q[i][b] @ each[b] / tau for each in k])
            for j in range(2):
                projector = objective.projectors[2 * i + j]
                hidden = np.maximum(projected(own[i], projector[0]), 0)
                hidden = np.maximum(projected(hidden, projector[2]), 0)
                error = ((convolved(hidden, array(projector[4].weight))[b] - theirs[j][b]) ** 2).mean()
                expected += scores[j] / scores.sum() * error / size / 2
    got = objective(student, teacher, batch(size), 0.0)["calibration"]
    assert got.item() == pytest.approx(expected, rel=1e-10)


def test_attention_of_no_heat_is_the_best_block_and_of_much_heat_all_alike():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(4, n, 6, generator=generator, dtype=torch.float64) for n in (3, 2))
    torch.testing.assert_close(block_attention(q, k, 1e9), torch.full((4, 3, 2), 0.5, dtype=torch.float64))
    assert block_attention(q, k, 1e-9).amax(2).min() > 1 - 1e-9


def test_each_sample_of_a_smaller_batch_is_told_in_as_many_numbers():
    # The reference skips the last batch; here a batch of any size goes through the same networks.
    objective = built("semckd").eval()
    for size in (1, 3, 16):
        assert objective(maps(STUDENT, size, 1), maps(TEACHER, size, 2), batch(size), 0.0)["calibration"].isfinite()


def test_gradient():
    objective, teacher = built("semckd", {"quantiles": 3}), maps(TEACHER, 3, 2)

    def value(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        signals = Signals(teacher.logits, features={"block1": a, "block2": b})
        return objective(signals, teacher, batch(3), 0.0)["calibration"]

    leaves = [x.requires_grad_() for x in maps(STUDENT, 3, 1).features.values()]
    assert torch.autograd.gradcheck(value, leaves, fast_mode=True)


def test_empty_maps_have_finite_gradients():
    objective = built("semckd").float()
    student = maps(STUDENT, 3, 1, torch.float32)
    for values in student.features.values():
        values.zero_().requires_grad_()
    empty = {tap: torch.zeros_like(values) for tap, values in maps(TEACHER, 3, 2, torch.float32).features.items()}
    value = objective(student, Signals(student.logits, features=empty), batch(3), 0.0)["calibration"]
    value.backward()
    assert value.isfinite()
    assert all(values.grad.isfinite().all() for values in student.features.values())


def test_all_blocks_meet_whatever_their_number():
    objective = built("semckd", student=TOKENS)
    assert len(objective.projectors) == 4 * 2
    assert objective.needs.student == {f"features/block{i}" for i in range(1, 5)}
    assert objective(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["calibration"].isfinite()
    assert built("semckd", {"width": 7}).projectors[1][0].linear.out_features == 7
    assert built("semckd").projectors[1][0].linear.out_features == 16


def test_refusals():
    for teacher, options in ((TEACHER, {"blocks": ["block2"]}), (SignalShapes(5, 8, {"block2": (8, 4, 4)}), {})):
        with pytest.raises(ConfigError, match="only one"):
            built("semckd", options, teacher=teacher)
    with pytest.raises(ConfigError, match="unknown name 'block7'"):
        built("semckd", {"blocks": ["block7", "block2"]})
    with pytest.raises(ConfigError, match="needs cached features"):
        built("semckd", teacher=SignalShapes(5, 8))
    with pytest.raises(ConfigError, match="other proportions"):
        built("semckd", teacher=SignalShapes(5, 8, {"block1": (5, 4, 4), "block2": (8, 2, 4)}))
