from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, Objective, build_objective
from pipeline.objectives.methods.srrl import regression_losses
from pipeline.signals import LinearHead, Signals, SignalShapes

B, CHANNELS, WIDTH, CLASSES = 4, 3, 5, 6


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def teacher(width: int = WIDTH) -> Signals:
    head = LinearHead(random(CLASSES, width, seed=1), random(CLASSES, seed=2))
    embedding = random(B, width, seed=3)
    return Signals(head(embedding), embedding, head=head)


MAPS = random(B, CHANNELS, 4, 4, seed=4)
STUDENT = SignalShapes(9, None, {"block1": (8, 8, 8), "block2": (CHANNELS, 4, 4)})


def build(**options: object) -> Objective:
    torch.manual_seed(0)
    return build_objective("srrl", options, STUDENT, teacher().shapes(), Context(B, 9)).double()


def step(objective: Objective, maps: torch.Tensor = MAPS, of: Signals | None = None) -> dict[str, torch.Tensor]:
    rows = torch.arange(len(maps))
    student = Signals(torch.zeros(len(maps), 9), None, {"block2": maps})
    return objective(student, of or teacher(), Batch(rows - rows - 1, rows, rows), 0.0)


@pytest.mark.parametrize("rectify", [True, False])
def test_equals_the_equation_in_float64(rectify: bool):
    objective, t = build(rectify=rectify, feature_weight=3.0), teacher()
    weight = objective.connector.linear.weight.detach().numpy()
    projected = np.einsum("dc,bchw->bdhw", weight, MAPS.numpy())
    for d in range(WIDTH):
        projected[:, d] = (projected[:, d] - projected[:, d].mean()) / np.sqrt(projected[:, d].var() + 1e-5)
    pooled = (np.maximum(projected, 0) if rectify else projected).mean((2, 3))
    judged = pooled @ t.head.weight.numpy().T + t.head.bias.numpy()
    terms = step(objective)
    assert terms["feature"].item() == pytest.approx(3 * ((pooled - t.embedding.numpy()) ** 2).mean(), rel=1e-10)
    assert terms["regression"].item() == pytest.approx(((judged - t.logits.numpy()) ** 2).mean(), rel=1e-10)


def test_by_hand():
    # Off by (1, -1): the head, which sums and doubles, sees 0 and 2 of it.
    head = LinearHead(torch.tensor([[1.0, 1.0], [2.0, 0.0]]), torch.tensor([5.0, 0.0]))
    embedding = torch.tensor([[1.0, 2.0]])
    feature, regression = regression_losses(torch.tensor([[2.0, 1.0]]), embedding, head(embedding), head)
    assert (feature.item(), regression.item()) == (1.0, 2.0)


def test_both_vanish_where_the_embedding_is_found():
    t = teacher()
    assert all(loss.max() < 1e-24 for loss in regression_losses(t.embedding, t.embedding, t.logits, t.head))


def test_the_teachers_classifier_is_fixed():
    t = teacher()
    head = LinearHead(t.head.weight.requires_grad_(), t.head.bias.requires_grad_())
    sum(step(build(), of=Signals(t.logits, t.embedding, head=head)).values()).backward()
    assert head.weight.grad is None
    assert head.bias.grad is None


def test_gradient():
    t, pooled = teacher(), random(B, WIDTH, seed=5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: regression_losses(x, t.embedding, t.logits, t.head), (pooled,))


def test_a_rectified_projection_has_no_negative_entry_and_the_other_has():
    t = teacher()
    low = Signals(t.logits, torch.full_like(t.embedding, -10.0), head=t.head)
    losses = [step(build(rectify=rectify), of=low)["feature"] for rectify in (True, False)]
    assert losses[0] > 100
    optimizer = torch.optim.Adam((free := build(rectify=False)).parameters(), lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        step(free, of=low)["feature"].backward()
        optimizer.step()
    assert step(free, of=low)["feature"] < 1


def test_a_map_of_one_cell_and_a_batch_of_one():
    student = SignalShapes(9, None, {"block1": (CHANNELS, 1, 1)})
    objective = build_objective("srrl", {}, student, teacher().shapes(), Context(B, 9)).double()
    t, rows = teacher(), torch.arange(1)
    signals = Signals(torch.zeros(1, 9), None, {"block1": MAPS[:1, :, :1, :1]})
    terms = objective(signals, Signals(t.logits[:1], t.embedding[:1], head=t.head), Batch(rows, rows, rows), 0.0)
    assert all(torch.isfinite(term) for term in terms.values())


def test_refusals():
    def refused(match: str, student: SignalShapes, of: SignalShapes):
        with pytest.raises(ConfigError, match=match):
            build_objective("srrl", {}, student, of, Context(B, 9))

    refused("student's last map", SignalShapes(9, 4), teacher().shapes())
    refused("teacher's embedding", STUDENT, SignalShapes(CLASSES, linear=True))
    refused("'head'", STUDENT, SignalShapes(CLASSES, 4))
