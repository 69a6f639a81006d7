from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from objectives.layers import Array, cell_means
from objectives.maps import CONTEXT, built, gradients_agree, network, rows, value
from torch import nn

from pipeline.errors import ConfigError
from pipeline.objectives import build_objective
from pipeline.objectives.maps import CellNorm
from pipeline.objectives.methods.ft import FT, transfer_losses
from pipeline.signals import SignalShapes

STUDENT, TEACHER = ((3, 8), (3, 8)), ((4, 16), (6, 16))


def test_two_samples_by_hand():
    # (3, 4) is (0.6, 0.8) at length one: 0.4 and 0.8 away from (1, 0); the other sample agrees but for its length.
    student, teacher = torch.tensor([[3.0, 4.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
    loss = transfer_losses(student[:, :, None, None], teacher[:, :, None, None]).mean()
    assert loss.item() == pytest.approx((0.4 + 0.8) / 4, rel=1e-6)


def layers(stack: Any, x: Array) -> Array:
    """3 x 3 convolutions, batch normalisations and leaky ReLUs, by sums over shifted maps."""
    for layer in stack:
        if isinstance(layer, nn.Conv2d):
            weight, padded = layer.weight.detach().numpy(), np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
            h, w = x.shape[2:]
            shifted = [(i, j, padded[:, :, i : i + h, j : j + w]) for i in range(3) for j in range(3)]
            x = sum(np.einsum("oc,bchw->bohw", weight[:, :, i, j], part) for i, j, part in shifted)
            if layer.bias is not None:
                x = x + layer.bias.detach().numpy()[:, None, None]
        elif isinstance(layer, CellNorm):
            mean, variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
            x = (x - mean) / np.sqrt(variance + layer.eps)
        else:
            x = np.where(x > 0, x, 0.1 * x)
    return x


def test_equals_the_equation_in_float64_on_means():
    student, full, cached = network(1, *STUDENT), network(2, *TEACHER), network(2, *TEACHER, grid=4)
    objective = built("ft", student, cached, reconstruction_weight=0.3, transfer_weight=0.7)
    assert isinstance(objective, FT)
    terms = objective(student, cached, rows(), 0.0) | objective(student, cached, rows(), 0.5)
    (transfer,) = objective.transfers
    s, t = (cell_means(signals.features["block2"], 4) for signals in (student, full))
    factor = layers(transfer.encoder, t)
    assert factor.shape[1] == 3  # half of the teacher's channels
    error = ((layers(transfer.decoder, factor) - t) ** 2).mean()
    assert terms["reconstruction"].item() == pytest.approx(0.3 * error, rel=1e-10)
    translated, differences = layers(transfer.translator, s), []
    for b in range(len(s)):
        q_s, q_t = (x[b].ravel() / np.sqrt((x[b] ** 2).sum()) for x in (translated, factor))
        differences += list(np.abs(q_s - q_t))
    assert terms["transfer"].item() == pytest.approx(0.7 * np.mean(differences), rel=1e-10)


def test_the_length_of_factors_does_not_count():
    factor = network(1, (4, 4)).features["block1"]
    assert transfer_losses(factor * torch.linspace(0.1, 7, 5)[:, None, None, None], factor).mean().item() < 1e-15


def test_first_the_paraphraser_learns_then_the_translator():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("ft", student, teacher, paraphrase_first=0.2)

    def learning(progress: float) -> set[str]:
        loss = value(objective, student, teacher, progress)
        found = torch.autograd.grad(loss, list(objective.parameters()), allow_unused=True)
        names = [name.split(".")[2] for name, _ in objective.named_parameters()]
        return {name for name, grad in zip(names, found, strict=True) if grad is not None}

    assert learning(0.19) == {"encoder", "decoder"}
    assert learning(0.2) == {"translator"}


def test_a_paraphraser_learns_to_reconstruct():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    objective = built("ft", student, teacher, rate=1.0)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.01)
    errors = []
    for _ in range(60):
        terms = objective(student, teacher, rows(), 0.0)
        optimizer.zero_grad()
        terms["reconstruction"].backward()
        optimizer.step()
        errors.append(terms["reconstruction"].item())
    assert errors[-1] < 0.5 * errors[0]


def test_one_sample_of_one_cell():
    student, teacher = network(1, (3, 1), batch=1), network(2, (4, 1), batch=1)
    assert torch.isfinite(value(built("ft", student, teacher), student, teacher))


def test_gradient():
    student, teacher = network(1, *STUDENT), network(2, *TEACHER, grid=4)
    assert gradients_agree(built("ft", student, teacher), student, teacher, "block2")


def test_refusals():
    shapes = SignalShapes(3, features={"block1": (4, 4, 4)})
    with pytest.raises(ConfigError, match=r"ft\.blocks: unknown name 'block2'"):
        build_objective("ft", {"blocks": ["block2"]}, shapes, shapes, CONTEXT)
    with pytest.raises(ConfigError, match="add `features"):
        build_objective("ft", {}, shapes, SignalShapes(3), CONTEXT)
