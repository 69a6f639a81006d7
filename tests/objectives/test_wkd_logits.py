from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden
from scipy.optimize import linprog

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, build_objective
from pipeline.objectives.methods.wkd_logits import Options, class_costs, target_likelihood, transport_costs
from pipeline.signals import LinearHead, Signals, SignalShapes


def pair(rows: int = 4, classes: int = 6, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    z, t = torch.randn(2, rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * scale
    return z, t


def vectors(classes: int = 6) -> torch.Tensor:
    return torch.randn(classes, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(x: torch.Tensor, label: int, temperature: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    others = np.exp(np.delete(x.numpy(), label) / temperature)
    return others / others.sum()


def test_three_classes_by_hand():
    # One iteration from (1/2, 1/2) with all costs ln 2 and ε = 1: G = 1/2 everywhere, so v = 2 b, u = a, P = a bᵀ.
    costs = torch.full((3, 3), math.log(2))
    student, teacher = torch.tensor([[5.0, math.log(3), 0.0]]), torch.tensor([[-5.0, 0.0, 0.0]])
    options = Options(temperature=1, epsilon=1, iterations=1)
    moved = transport_costs(student, teacher, torch.tensor([0]), costs, options)
    assert moved.item() == pytest.approx(math.log(2), rel=1e-5)  # all of it, at the one price
    # -p log q of the target, 1/2 and 1/4.
    student, teacher = torch.tensor([[1.0, 1.0, 2.0]]).log(), torch.tensor([[2.0, 1.0, 1.0]]).log()
    assert target_likelihood(student, teacher, torch.tensor([0])).item() == pytest.approx(0.5 * math.log(4), rel=1e-5)


@pytest.mark.parametrize("sharpen", [0.0, 0.7])
def test_equals_the_authors_form_in_float64(sharpen: float):
    """With a matrix of K - 1 classes for each sample, as the paper has it."""
    (z, t), rows = pair(), vectors().numpy()
    labels = torch.tensor([0, 5, 2, 2])
    target = transport = 0.0
    for z_b, t_b, y in zip(z, t, labels.tolist(), strict=True):
        a, b = by_hand(z_b, y, 2.0), by_hand(t_b, y, 2.0)
        others = np.delete(rows, y, axis=0)
        costs = np.zeros((5, 5))
        for i in range(5):
            for j in range(5):
                x, w = others[i], others[j]
                apart = 1 - x @ w / np.sqrt((x @ x) * (w @ w))
                costs[i, j] = max(1 - math.exp(-sharpen * apart) if sharpen else apart, 0) + 1e-8
        kernel, u = np.exp(-costs / 0.1), np.full(5, 0.2)
        for _ in range(7):
            v = b / (kernel.T @ u + 1e-8)
            u = a / (kernel @ v + 1e-8)
        transport += sum(u[i] * kernel[i, j] * v[j] * costs[i, j] for i in range(5) for j in range(5))
        p, q = (np.exp(x.numpy()) / np.exp(x.numpy()).sum() for x in (t_b, z_b))
        target -= p[y] * math.log(q[y])
    shapes, row = SignalShapes(logits=6), torch.arange(4)
    told = SignalShapes(logits=6, linear=True, head_classes=6)
    options = {"transport_weight": 10, "temperature": 2, "epsilon": 0.1, "iterations": 7, "sharpen": sharpen}
    objective = build_objective("wkd-logits", options, shapes, told, Context(4, 6, row))
    head = LinearHead(vectors(), torch.zeros(6))
    got = objective(Signals(z), Signals(t, head=head), Batch(labels, row, torch.zeros_like(row)), 0.0)
    assert got["target"].item() == pytest.approx(target / 4, rel=1e-10)
    assert got["transport"].item() == pytest.approx(10 * transport / 4, rel=1e-10)


def test_with_many_iterations_and_little_entropy_it_is_the_cheapest_plan():
    """As a linear program has it. An ε that is smaller still would let the reference's 1e-8 weigh beside the kernel."""
    z, t = pair(3)
    costs = class_costs(vectors(), 0.0) / 8
    options = Options(temperature=2, epsilon=0.015, iterations=1000)
    labels = torch.tensor([1, 0, 4])
    found = transport_costs(z, t, labels, costs, options)
    for row, y in enumerate(labels.tolist()):
        price = np.delete(np.delete(costs.numpy(), y, 0), y, 1)
        sums = [np.kron(np.eye(5), np.ones(5)), np.kron(np.ones(5), np.eye(5))]
        masses = [by_hand(z[row], y, 2.0), by_hand(t[row], y, 2.0)]
        least = linprog(price.ravel(), A_eq=np.vstack(sums), b_eq=np.concatenate(masses)).fun
        assert found[row].item() == pytest.approx(least, rel=2e-2)


def test_memory_is_of_classes_squared_and_of_no_sample_its_own():
    z, t = pair(32, 40)
    costs, sizes = class_costs(vectors(40), 1.0), []

    def seen(x: torch.Tensor) -> torch.Tensor:
        sizes.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(seen, lambda x: x):
        transport_costs(z.requires_grad_(), t, torch.arange(32), costs, Options())
    assert max(sizes) <= 40 * 40


def test_classes_without_a_vector_and_very_sure_networks_have_finite_gradients():
    costs = class_costs(vectors().float().index_fill(0, torch.tensor([1, 3]), 0), 1.0)
    for scale, dtype in ((1e4, torch.float32), (1e3, torch.half)):
        z, t = (x.to(dtype) for x in pair(4, 6, scale))
        value = transport_costs(z.requires_grad_(), t, torch.tensor([0, 5, 2, 2]), costs, Options())
        value.sum().backward()
        assert value.dtype == torch.float32
        assert z.grad is not None
        assert value.isfinite().all()
        assert z.grad.isfinite().all()


def test_two_classes_leave_nothing_to_move():
    z, t = pair(3, 2)
    moved = transport_costs(z, t, torch.tensor([0, 1, 0]), class_costs(vectors(2), 1.0), Options())
    torch.testing.assert_close(moved, torch.full_like(moved, 1e-8), rtol=1e-6, atol=0)


def test_gradient():
    z, t = pair(2, 4)
    options, costs = Options(epsilon=0.3, iterations=3), class_costs(vectors(4), 1.0)

    def both(s: torch.Tensor) -> torch.Tensor:
        labels = torch.tensor([0, 3])
        return torch.stack((target_likelihood(s, t, labels), transport_costs(s, t, labels, costs, options)))

    assert torch.autograd.gradcheck(both, (z.requires_grad_(),))


@pytest.mark.parametrize("name", ["wkd_l", "wkd_l_plain"])
def test_golden_values_of_the_reference(name: str):
    for case in golden(name):
        options = {**case.options, "transport_weight": case.options["weight"]}
        del options["weight"], options["cost"]
        objective = case.objective("wkd-logits", options).double()
        assert not objective.is_prepared()  # the classifier says what classes cost
        terms = objective(case.signals("student"), case.signals("teacher"), case.batch(), 0.5)
        for term, expected in case.terms.items():
            assert terms[term].item() == pytest.approx(expected, rel=1e-9)
        case.check(terms["target"] + terms["transport"])


def test_class_means_say_what_classes_cost_wherever_their_mean_lies():
    (z, t), row = pair(), torch.arange(4)
    shapes, told = SignalShapes(logits=6), SignalShapes(logits=6, embedding=8)
    batch = Batch(row, row, torch.zeros_like(row))
    values = []
    for shift in (0.0, 100.0):
        context = Context(4, 6, row, class_means=lambda shift=shift: vectors() + shift)  # type: ignore[misc]
        objective = build_objective("wkd-logits", {"cost": "class-means"}, shapes, told, context)
        values.append(objective(Signals(z), Signals(t), batch, 0.0)["transport"].item())
        assert objective.is_prepared()  # its steps are not recorded
    costs = class_costs(vectors() - vectors().mean(0), 1.0)
    expected = 600 * transport_costs(z, t, row, costs, Options()).mean().item()
    assert values == pytest.approx([expected] * 2, rel=1e-9)


def test_refuses_a_teacher_without_what_says_the_cost_and_one_class():
    shapes, context = SignalShapes(logits=6), Context(4, 6, torch.arange(4))
    with pytest.raises(ConfigError, match="'head'"):
        build_objective("wkd-logits", {}, shapes, shapes, context)
    with pytest.raises(ConfigError, match="'embedding'"):
        build_objective("wkd-logits", {"cost": "class-means"}, shapes, shapes, context)
    one = replace(shapes, logits=1)
    with pytest.raises(ConfigError, match="2 classes or more"):
        build_objective("wkd-logits", {}, one, one, context)
