from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from golden import golden
from torch import nn

from pipeline.errors import ConfigError
from pipeline.experiment.networks import shapes_of
from pipeline.models import build_network
from pipeline.objectives import Batch, Context, Objective, build_objective, kl_divergence
from pipeline.objectives.exits import TokenExit
from pipeline.objectives.methods.ofa import enhanced
from pipeline.signals import Signals, SignalShapes

TEACHER = SignalShapes(logits=5, embedding=24)
CNN = SignalShapes(5, 16, {"block1": (4, 8, 8), "block2": (8, 4, 4), "block3": (16, 2, 2)})
VIT = SignalShapes(5, 12, {f"block{k}": (12, 4, 4) for k in (1, 2, 3, 4)})
VIT_OPTIONS = {"img_size": 16, "patch_size": 4, "embed_dim": 48, "depth": 4, "num_heads": 3, "global_pool": "avg"}
LABELS = torch.tensor([0, 4, 2, 2, 1, 3])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def batch(labels: torch.Tensor = LABELS) -> Batch:
    rows = torch.arange(len(labels))
    return Batch(labels, rows, torch.zeros_like(rows))


def ofa(student: SignalShapes = CNN, labels: torch.Tensor | None = LABELS, **options: object) -> Objective:
    torch.manual_seed(0)
    return build_objective("ofa", options, student, TEACHER, Context(6, 5, labels))


def said(shapes: SignalShapes, size: int = 6, seed: int = 0) -> Signals:
    maps = {tap: random(size, *shape, seed=seed + i).float() for i, (tap, shape) in enumerate(shapes.features.items())}
    return Signals(random(size, 5, seed=seed).float(), None, maps)


@pytest.mark.parametrize(
    ("model", "options", "blocks"), [("cifar_resnet8", {}, 3), ("vit_tiny_patch16_224", VIT_OPTIONS, 4)]
)
def test_exits_are_those_of_the_blocks_of_a_real_network(model: str, options: dict[str, object], blocks: int):
    """`final`, which the shapes of a network have, too, is none; and the last block is not halved."""
    shapes = shapes_of(build_network(model, 5, input_size=16, options=options))
    assert "final" in shapes.features
    built = ofa(shapes)
    assert list(built.exits) == [f"block{k + 1}" for k in range(blocks)]
    if model == "cifar_resnet8":
        halvings = [sum(getattr(m, "stride", None) == (2, 2) for m in each.modules()) for each in built.exits.values()]
        assert halvings == [2, 1, 0]


def test_two_classes_by_hand():
    # The teacher says 3 : 1 and is right; with ε = 2 the target's coefficient is 1.75² - 1, the other's 1/16.
    teacher, student = torch.tensor([[3.0, 1.0]]).log(), torch.tensor([[0.0, math.log(3)]])
    value = enhanced(student, teacher, torch.tensor([0]), 2.0, 1.0)
    assert value.item() == pytest.approx(-(1.75**2 - 1) * math.log(1 / 4) - math.log(3 / 4) / 16, rel=1e-5)


@pytest.mark.parametrize(("epsilon", "temperature"), [(1.0, 1.0), (1.5, 1.0), (3.0, 2.0)])
def test_equals_the_equation_in_float64(epsilon: float, temperature: float):
    z, t = random(2, 6, 5)
    total = 0.0
    for row, y in enumerate(LABELS.tolist()):
        p, q = (np.exp(x[row] / temperature) / np.exp(x[row] / temperature).sum() for x in (t.numpy(), z.numpy()))
        for c in range(5):
            hit = float(c == y)
            total -= ((p[c] + hit) ** epsilon - hit) * np.log(q[c])
    objective = ofa(epsilon=epsilon, temperature=temperature, blocks=[])
    got = objective(Signals(z), Signals(t), batch(), 0.0)
    assert list(got) == ["logits"]
    assert got["logits"].item() == pytest.approx(total / 6, rel=1e-10)


def test_with_epsilon_one_it_is_kd_and_the_teachers_entropy_and_reads_no_label():
    z, t = random(2, 6, 5)
    entropy = -(t.softmax(1) * t.log_softmax(1)).sum(1)
    value = enhanced(z, t, torch.full((6,), -1), 1.0, 1.0)
    torch.testing.assert_close(value, kl_divergence(z, t) + entropy)
    assert not ofa(labels=None).needs.labels
    ofa(labels=None, epsilon=1)
    with pytest.raises(ConfigError, match="label for every sample"):
        ofa(labels=None, epsilon=1.5)


def test_the_target_counts_for_more_where_the_teacher_is_sure_of_it():
    sure, unsure = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.0, 0.0]])
    labels, student = torch.tensor([0]), torch.zeros(1, 3)
    gains = [
        (enhanced(student, t, labels, 2.0, 1.0) - enhanced(student, t, labels, 1.0, 1.0)).item() for t in (sure, unsure)
    ]
    assert gains[0] > gains[1] > 0


def test_its_value_is_the_sum_over_the_students_logits_and_all_exits():
    objective, student, teacher = ofa(epsilon=1.5).eval(), said(CNN), said(CNN, seed=7)
    terms = objective(student, teacher, batch(), 0.0)
    built = objective.get_submodule("exits")
    assert isinstance(built, nn.ModuleDict)
    assert list(built) == ["block1", "block2", "block3"]
    logits = [built[block](student.features[block]) for block in built]
    assert all(each.shape == (6, 5) for each in logits)
    expected = sum(enhanced(each, teacher.logits, LABELS, 1.5, 1.0).mean() for each in logits)
    torch.testing.assert_close(terms["exits"], expected)


def test_exits_on_convolutional_blocks_are_the_papers():
    # As many halvings as blocks follow, twice the channels at each but the last, which has the wider embedding.
    built = ofa().get_submodule("exits")
    assert isinstance(built, nn.ModuleDict)
    shapes = {
        block: [(conv.in_channels, conv.out_channels, conv.stride[0]) for conv in each if isinstance(conv, nn.Conv2d)]
        for block, each in built.items()
    }
    assert shapes["block1"] == [(4, 4, 2), (4, 4, 1), (4, 4, 1), (4, 8, 1), (8, 8, 2), (8, 8, 1), (8, 8, 1), (8, 24, 1)]
    assert shapes["block2"] == [(8, 8, 2), (8, 8, 1), (8, 8, 1), (8, 24, 1)]
    assert shapes["block3"] == [(16, 24, 1)]


@pytest.mark.parametrize("size", [1, 6])
@pytest.mark.parametrize("shapes", [CNN, VIT, SignalShapes(5, 16, {"block1": (8, 1, 1), "block2": (16, 1, 1)})])
def test_any_student_and_a_batch_of_one(shapes: SignalShapes, size: int):
    objective = ofa(shapes)
    student = said(shapes, size)
    terms = objective(student, said(shapes, size, seed=7), batch(LABELS[:size]), 0.0)
    terms["exits"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in objective.parameters())
    tokens = [isinstance(module, TokenExit) for module in objective.modules()]
    assert sum(tokens) == (4 if shapes is VIT else 0)


def test_exits_learn():
    # From maps that tell the class: every exit comes to say what the teacher says.
    objective, teacher = ofa(), Signals(torch.eye(5)[LABELS] * 5)
    student = said(CNN)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.05)
    values = []
    for _ in range(15):
        value = objective(student, teacher, batch(), 0.0)["exits"]
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


def test_gradient():
    z, t = random(2, 3, 5)
    assert torch.autograd.gradcheck(lambda s: enhanced(s, t, LABELS[:3], 1.5, 2.0), (z.requires_grad_(),))


def test_golden_values_of_the_reference():
    for case in golden("ofa_logit"):
        case.check_objective("ofa", {**case.options, "blocks": []})


def test_refuses_what_the_student_does_not_have():
    with pytest.raises(ConfigError, match="unknown name 'block4'") as error:
        ofa(blocks=["block4"])
    assert "block3" in str(error.value)
    with pytest.raises(ConfigError, match="same classes, got 7 and 5"):
        ofa(SignalShapes(logits=7))
    with pytest.raises(ConfigError, match="epsilon"):
        ofa(epsilon=0.5)
