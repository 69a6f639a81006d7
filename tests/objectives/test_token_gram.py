from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden
from objectives.layers import STUDENT, TEACHER, array, batch, built, cell_means, maps
from objectives.maps import gradients_agree

from pipeline.errors import ConfigError
from pipeline.objectives.methods.token_gram import relation_divergence
from pipeline.signals import Signals, SignalShapes


def by_loops(s: np.ndarray, t: np.ndarray, tau: float) -> float:
    """The mean over samples and places of the divergence of a place's cosines with all of its image."""
    values = []
    for of_student, of_teacher in zip(s, t, strict=True):
        places = [x.reshape(len(x), -1).T for x in (of_student, of_teacher)]
        for i in range(len(places[0])):
            p, q = (
                np.array([np.exp(x[i] @ y / math.sqrt((x[i] @ x[i]) * (y @ y)) / tau) for y in x])
                for x in (places[1], places[0])
            )
            p, q = p / p.sum(), q / q.sum()
            values.append((p * np.log(p / q)).sum())
    return float(np.mean(values))


def test_two_places_by_hand():
    # Cosines (1, 0) in the teacher and (1, 0.6) in the student, at τ = 1; the other place alike.
    teacher = torch.eye(2, dtype=torch.float64)[None, :, None, :]
    student = torch.tensor([[1.0, 0.6], [0.0, 0.8]], dtype=torch.float64)[None, :, None, :]
    p, q = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-0.4))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert relation_divergence(student, teacher, 1.0).tolist() == pytest.approx([expected])


def test_equals_the_equation_in_float64():
    objective, s, t = built("token-gram", {"temperature": 0.3}), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    t.features["block2"].add_(0.1)  # else some places are zero in all channels
    weight = array(objective.projectors[0].weight)
    projected = np.einsum("oc,bchw->bohw", weight, cell_means(s.features["block2"], 4))
    expected = by_loops(projected, array(t.features["block2"]), 0.3)
    assert objective(s, t, batch(3), 0.0)["relations"].item() == pytest.approx(expected, rel=1e-10)


def test_a_student_that_turns_or_scales_the_teachers_features_is_as_good_as_the_teacher():
    t = maps(TEACHER, 3, 2)
    turn = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    turned = Signals(t.logits, features={"block2": 3 * torch.einsum("dc,bchw->bdhw", turn, t.features["block2"])})
    value = built("token-gram", {"project": False}, student=TEACHER)(turned, t, batch(3), 0.0)["relations"]
    assert abs(value.item()) < 1e-12


def test_gradient():
    objective, student, teacher = built("token-gram"), maps(STUDENT, 2, 1), maps(TEACHER, 2, 2)
    assert gradients_agree(objective, student, teacher, "block2")


@pytest.mark.parametrize("method", ["token_gram", "token_gram_warm"])
def test_authors_values_and_gradients(method: str):
    """Their grids are whole ones; in one case the student's is enlarged."""
    for case in golden(method):
        options = {"temperature": case.options["temperature"], "project": case.options["projector"]}
        objective = case.objective("token-gram", options, grid=None).double()
        case.load(objective.projectors[0], "map_projector")
        case.check(objective(case.signals("student"), case.signals("teacher"), case.batch(), 0.5)["relations"])


def test_places_of_zeros_have_usual_gradients():
    student = torch.zeros(2, 3, 2, 2, requires_grad=True)
    value = relation_divergence(student, torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)), 0.07)
    value.sum().backward()
    assert value.isfinite().all()
    assert student.grad.abs().max() < 1e3


def test_refusals():
    with pytest.raises(ConfigError, match="compares 2 places of a map or more"):
        built("token-gram", teacher=SignalShapes(5, 8, {"block2": (8, 1, 1)}))
    with pytest.raises(ConfigError, match="other proportions"):
        built("token-gram", teacher=SignalShapes(5, 8, {"block2": (8, 4, 2)}))
