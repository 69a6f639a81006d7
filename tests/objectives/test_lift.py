from __future__ import annotations

import numpy as np
import pytest
import torch
from objectives.layers import STUDENT, TEACHER, Array, array, batch, built, cell_means, maps

from pipeline.errors import ConfigError
from pipeline.models.reused import ReusedHead
from pipeline.objectives import Context, Objective
from pipeline.signals import LinearHead, Signals, SignalShapes


def lifted(x: Array, objective: Objective) -> Array:
    """One place at a time: a linear map, and a normalisation over channels."""
    layer = objective.projector
    found = np.zeros((len(x), len(layer.linear.weight), *x.shape[2:]))
    for b, row, column in np.ndindex(len(x), *x.shape[2:]):
        y = array(layer.linear.weight) @ x[b, :, row, column]
        y = (y - y.mean()) / np.sqrt(((y - y.mean()) ** 2).mean() + 1e-5)
        found[b, :, row, column] = y * array(layer.norm.weight) + array(layer.norm.bias)
    return found


def log_softmax(z: Array) -> Array:
    return z - np.log(np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)) - z.max(1, keepdims=True)


@pytest.mark.parametrize("classifier", ["learned", "teacher"])
@pytest.mark.parametrize("target", ["map", "embedding"])
def test_equals_the_equation_in_float64(classifier: str, target: str):
    options = {"classifier": classifier, "target": target, "feature_weight": 0.7, "kd_weight": 0.4, "temperature": 2.0}
    objective, s, t, given = built("lift", options), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2), batch(4)
    with torch.no_grad():
        objective.projector.norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    maps_ = lifted(array(s.features["block2"]), objective)
    pooled = maps_.mean((2, 3))
    apart = cell_means(maps_, 4) - array(t.features["block2"]) if target == "map" else pooled - array(t.embedding)
    own = objective.projector.own
    head = t.head if own is None else own
    q = log_softmax(pooled @ array(head.weight).T + array(head.bias))
    tempered = log_softmax((pooled @ array(head.weight).T + array(head.bias)) / 2)
    p = log_softmax(array(t.logits) / 2)
    found = objective(s, t, given, 0.0)
    assert found["feature"].item() == pytest.approx(0.7 * (apart**2).mean(), rel=1e-10)
    assert found["kd"].item() == pytest.approx(0.4 * 4 * (np.exp(p) * (p - tempered)).sum(1).mean(), rel=1e-10)
    assert ("cross-entropy" in found) == (classifier == "learned") == objective.needs.labels
    if classifier == "learned":
        assert found["cross-entropy"].item() == pytest.approx(-q[np.arange(4), given.labels].mean(), rel=1e-10)


@pytest.mark.parametrize("classifier", ["learned", "teacher"])
def test_what_is_kept_says_what_was_trained(classifier: str):
    objective, s, t = built("lift", {"classifier": classifier}), maps(STUDENT, 4, 1), maps(TEACHER, 4, 2)
    kept = ReusedHead(objective.kept(), t.head).double()
    said = kept(s.features["block2"])
    expected = kept.projector(s.features["block2"]).mean((2, 3))
    torch.testing.assert_close(said.embedding, expected)
    if classifier == "learned":
        loss = torch.nn.functional.cross_entropy(said.logits, batch(4).labels)
        torch.testing.assert_close(objective(s, t, batch(4), 0.0)["cross-entropy"], loss)
        learned = {id(each) for each in objective.parameters()}
        assert all(id(each) in learned for each in kept.parameters())  # the very weights that training changes
    else:
        torch.testing.assert_close(said.logits, t.head(said.embedding))


def test_a_student_that_lifts_to_the_teacher_has_no_error():
    """The teacher's map is what the layer makes of the student's: the least that there is."""
    objective, s = built("lift"), maps(STUDENT, 4, 1)
    with torch.no_grad():
        target = objective.projector(s.features["block2"])
    t = Signals(s.logits, features={"block2": target})
    assert objective(s, t, batch(4), 0.0)["feature"].item() == 0


@pytest.mark.parametrize("options", [{}, {"classifier": "teacher", "target": "embedding"}, {"kd_weight": 1.0}])
def test_gradient(options: dict[str, object]):
    objective, s, t = built("lift", options), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)

    def value(x: torch.Tensor) -> torch.Tensor:
        return sum(objective(Signals(s.logits, features={"block2": x}), t, batch(3), 0.0).values())

    assert torch.autograd.gradcheck(value, (s.features["block2"].clone().requires_grad_(),), fast_mode=True)


def test_places_of_zeros_have_usual_gradients():
    objective = built("lift").float()
    x = torch.zeros(2, 6, 8, 8, requires_grad=True)
    t = Signals(torch.zeros(2, 5), features={"block2": torch.ones(2, 8, 4, 4)})
    sum(objective(Signals(torch.zeros(2, 5), features={"block2": x}), t, batch(2), 0.0).values()).backward()
    assert x.grad.abs().max() < 1e2


def test_refusals():
    def refused(match: str, options: dict[str, object] | None = None, **given: object) -> None:
        with pytest.raises(ConfigError, match=match):
            built("lift", options, **given)

    full = SignalShapes(5, 8, TEACHER.features, linear=False)
    refused("student's last map", student=SignalShapes(5, 6))
    refused("cached features", teacher=SignalShapes(5, 8))
    refused("teacher's embedding", {"target": "embedding"}, teacher=SignalShapes(5, None, TEACHER.features))
    refused("other proportions", teacher=SignalShapes(5, 8, {"block2": (8, 4, 2)}))
    refused("mean of its last map", {"classifier": "teacher"}, teacher=full)
    refused("no classes", context=Context(16, 0))
    refused("classes of the data", {"kd_weight": 1}, teacher=SignalShapes(7, 8, TEACHER.features))
    refused("does not read temperature", {"temperature": 4})
    refused("needs a label for every sample", context=Context(16, 5))
    built("lift", {"classifier": "teacher"}, context=Context(16, 5))


def test_a_head_of_half_precision_is_read_in_the_wider_one():
    objective, s, t = built("lift", {"classifier": "teacher", "kd_weight": 1}), maps(STUDENT, 3, 1), maps(TEACHER, 3, 2)
    half = LinearHead(t.head.weight.half(), t.head.bias.half())
    given = (Signals(t.logits, features=t.features, head=head) for head in (t.head, half))
    one, other = (objective(s, each, batch(3), 0.0)["kd"] for each in given)
    torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)
    assert other.dtype == torch.float64
