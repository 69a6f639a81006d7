from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, TOKENS, array, batch, built, cell_means, convolved, maps, projected
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.methods.uhkd import strengths
from pipeline.signals import Signals, SignalShapes


def test_a_constant_and_a_checkerboard_by_hand():
    # Of 4 x 4 cells of 3: the mean's frequency has 3 · 4, all others nothing. Of ±3 in turn: the highest has it.
    found = strengths(torch.full((1, 1, 4, 4), 3.0))[0, 0]
    assert found[0, 0].item() == pytest.approx(math.log(1 + 144) / 2)
    assert found.abs().sum().item() == pytest.approx(found[0, 0].item(), abs=1e-5)
    board = torch.tensor([[3.0, -3.0], [-3.0, 3.0]]).repeat(2, 2)[None, None]
    assert strengths(board)[0, 0, 2, 2].item() == pytest.approx(math.log(1 + 144) / 2)


def oracle(x: np.ndarray) -> np.ndarray:
    """The discrete Fourier transform by its definition."""
    g = x.shape[2]
    wave = np.exp(-2j * np.pi * np.outer(np.arange(g), np.arange(g)) / g) / np.sqrt(g)
    found = np.einsum("kh,bchw,lw->bckl", wave, x, wave)[..., : g // 2 + 1]
    return np.log(1 + np.abs(found) ** 2) / 2


def test_equals_the_equation_in_float64():
    objective, student, teacher, values = built("uhkd"), maps(STUDENT, 5, 1), maps(TEACHER, 5, 2), []
    for block, alignment in zip(("block1", "block2"), objective.alignments, strict=True):
        hidden = np.maximum(projected(oracle(cell_means(array(student.features[block]), 4)), alignment[0]), 0)
        s = convolved(hidden, array(alignment[2].weight)) + array(alignment[2].bias)[:, None, None]
        t = oracle(array(teacher.features[block]))
        t = (t - t.mean((0, 2, 3), keepdims=True)) / np.sqrt(t.var((0, 2, 3), keepdims=True) + 1e-5)
        values.append(((s - t) ** 2).mean())
    got = objective(student, teacher, batch(5), 0.0)["frequencies"]
    assert got.item() == pytest.approx(np.mean(values), rel=1e-10)


def test_shifts_do_not_matter_and_lengths_are_kept():
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(strengths(x.roll((1, 2), (2, 3))), strengths(x))
    squares = torch.expm1(2 * strengths(x))  # of half the spectrum: its inner columns stand for two
    doubled = squares * torch.tensor([1.0, 2.0, 1.0])
    torch.testing.assert_close(doubled.sum((2, 3)), x.square().sum((2, 3)))


def test_gradient():
    objective, student, teacher = built("uhkd"), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    assert gradients_agree(objective, student, teacher, "block1", "block2")


def test_silence_has_finite_gradients():
    objective = built("uhkd").float()
    features = {tap: torch.zeros_like(x).float().requires_grad_() for tap, x in maps(STUDENT, 3, 1).features.items()}
    empty = {tap: torch.zeros_like(x).float() for tap, x in maps(TEACHER, 3, 2).features.items()}
    silent = Signals(torch.zeros(3, 5), features=empty)
    objective(Signals(torch.zeros(3, 5), features=features), silent, batch(3), 0.0)["frequencies"].backward()
    assert all(x.grad.isfinite().all() for x in features.values())


def test_students_of_tokens_and_refusals():
    value = built("uhkd", student=TOKENS)(maps(TOKENS, 4, 1), maps(TEACHER, 4, 2), batch(4), 0.0)["frequencies"]
    assert value.isfinite()
    with pytest.raises(ConfigError, match="2 places of a map or more"):
        built("uhkd", teacher=SignalShapes(5, 8, {"block1": (8, 1, 1)}))
    with pytest.raises(ConfigError, match="needs cached features"):
        built("uhkd", teacher=SignalShapes(5, 8))
