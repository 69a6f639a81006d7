from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from shared import shared_file

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective, kl_divergence
from pipeline.signals import Signals, SignalShapes

CONTEXT = Context(num_samples=4, classes=2)


def kd(temperature: float = 4.0, classes: int = 2):
    shapes = SignalShapes(logits=classes)
    return build_objective("kd", {"temperature": temperature}, shapes, shapes, CONTEXT)


def batch(size: int) -> Batch:
    index = torch.arange(size)
    return Batch(labels=torch.zeros(size, dtype=torch.long), sample=index, view=torch.zeros_like(index))


def test_two_classes_by_hand():
    # The teacher is sure to one half, the student to 3:1. KL(½,½ ‖ ¾,¼) = ½ ln(½/¾) + ½ ln(½/¼).
    student = Signals(logits=torch.tensor([[math.log(3.0), 0.0]]))
    teacher = Signals(logits=torch.tensor([[1.0, 1.0]]))
    expected = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert kd(1.0)(student, teacher, batch(1), 0.0)["kl"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_equals_the_equation_in_float64(temperature: float):
    random = np.random.default_rng(0)
    z, t = random.normal(size=(2, 6, 5)) * 3

    def softmax(x: np.ndarray) -> np.ndarray:
        e = np.exp(x / temperature)
        return e / e.sum(1, keepdims=True)

    p, q = softmax(t), softmax(z)
    expected = temperature**2 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    got = kd(temperature, 5)(Signals(torch.tensor(z)), Signals(torch.tensor(t)), batch(6), 0.0)["kl"]
    assert got.dtype == torch.float64
    assert got.item() == pytest.approx(expected, rel=1e-12)


def test_high_temperature_limit_is_half_the_squared_distance_of_centred_logits():
    # Hinton et al., section 2.1: for T large, the gradient is that of (1/2K) ||z - t||^2 of zero-mean logits.
    z, t = torch.randn(2, 8, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z, t = z - z.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
    limit = ((z - t) ** 2).sum(1) / 20
    torch.testing.assert_close(kl_divergence(z, t, 1e4), limit, rtol=1e-3, atol=0)


def test_gradient():
    teacher = torch.randn(3, 4, dtype=torch.float64)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: kl_divergence(z, teacher, 2.0).mean(), (student,))


def test_golden_values_of_the_reference():
    import json

    cases = json.loads(shared_file("golden/objectives.json").read_text())
    for case in cases:
        arrays = np.load(shared_file(f"golden/{case['file']}"))
        logits = {}
        maps = torch.tensor(arrays["student_map"], requires_grad=True)
        for who, source in (("student", maps), ("teacher", torch.tensor(arrays["teacher_map"]))):
            weight = torch.tensor(arrays[f"{who}_head_weight"])
            logits[who] = source.mean((2, 3)) @ weight.T + torch.tensor(arrays[f"{who}_head_bias"])
        wanted = case["methods"]["kd"]
        size, classes = logits["student"].shape
        objective = kd(wanted["options"]["temperature"], classes)
        term = objective(Signals(logits["student"]), Signals(logits["teacher"]), batch(size), 0.0)["kl"]
        assert term.item() == pytest.approx(wanted["value"], rel=1e-9)
        (gradient,) = torch.autograd.grad(term, maps)
        np.testing.assert_allclose(gradient.numpy(), arrays["grad_student_map/kd"], rtol=1e-9, atol=1e-15)


def test_refuses_networks_of_different_classes():
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        build_objective("kd", {}, SignalShapes(logits=5), SignalShapes(logits=7), CONTEXT)
