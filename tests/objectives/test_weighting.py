"""Objectives whose samples count more where teacher and student are in doubt: `weighting: entropy`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from golden import golden
from pydantic import ValidationError
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.objectives import Batch, Context, KnownTeacher, ObjectiveEntry, ObjectiveSet
from pipeline.objectives.batch import MixedLabels
from pipeline.objectives.config import EntropyWeighting
from pipeline.objectives.sample_objective import entropy_weights
from pipeline.signals import Signals, SignalShapes

CONTEXT = Context(8, 5, torch.arange(8) % 5)
MAPS = {"block1": (4, 2, 2), "block2": (4, 2, 2)}
EVERYTHING = SignalShapes(5, 8, MAPS, linear=True)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 3


def made(*entries: object, shapes: SignalShapes = EVERYTHING, **others: Any) -> ObjectiveSet:
    checked = [ObjectiveEntry.model_validate(entry) for entry in entries]
    return ObjectiveSet("one", checked, EVERYTHING, shapes, CONTEXT, **others)


def entry(name: str = "kd", **options: object) -> dict[str, object]:
    return {"name": name, "weighting": {"name": "entropy", **options}}


def entropy(logits: list[float], temperature: float) -> float:
    powers = [math.exp(logit / temperature) for logit in logits]
    return -sum(power / sum(powers) * math.log(power / sum(powers)) for power in powers)


def batch(rows: int) -> Batch:
    numbers = torch.arange(rows) + 1
    return Batch(numbers % 5, numbers, numbers)


def test_of_two_classes_by_hand():
    # (0.8, 0.2) has 0.5004 nats; the student knows nothing, so its part is as large as can be: ½ · H · 2 = H.
    teacher, student = torch.tensor([[0.8, 0.2]]).log(), torch.zeros(1, 2)
    weight = entropy_weights(student, teacher, EntropyWeighting(temperature=1))
    assert weight.item() == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.2), rel=1e-6)
    certain = entropy_weights(torch.tensor([[1e4, -1e4]]).half(), teacher, EntropyWeighting(temperature=1))
    assert certain.item() == pytest.approx(weight.item() / 2, rel=1e-6)


@pytest.mark.parametrize(("bound", "divisor"), [("log-classes", math.log(5)), (100, 100.0)])
def test_equals_the_equation_in_float64(bound: object, divisor: float):
    z, t = random(6, 5), random(6, 5, seed=1)
    options = {"temperature": 2.0, "bound": bound}
    total = 0.0
    for own, taught in zip(z.tolist(), t.tolist(), strict=True):
        p, q = (np.exp(np.array(x) / 4) / np.exp(np.array(x) / 4).sum() for x in (taught, own))
        weight = entropy(taught, 2.0) / 2 * (1 + entropy(own, 2.0) / divisor)
        total += weight * 16 * float((p * np.log(p / q)).sum())
    assert made(entry(**options))(Signals(z), Signals(t), batch(6), 0.0).total.item() == pytest.approx(total / 6)


def test_hard_labels_count_where_the_teacher_is_in_doubt():
    """By the equation, of the two samples of three that have a label; and of none."""
    z, t = random(3, 5), random(3, 5, seed=1)
    given = Batch(torch.tensor([4, -1, 2]), torch.arange(3), torch.zeros(3, dtype=torch.long))
    weights = entropy_weights(z, t, EntropyWeighting())
    losses = [-float(z[b].log_softmax(0)[label]) for b, label in ((0, 4), (2, 2))]
    expected = (weights[0] * losses[0] + weights[2] * losses[1]) / 2
    assert made(entry("hard-label"))(Signals(z), Signals(t), given, 0.0).total.item() == pytest.approx(expected.item())
    assert made("hard-label")(Signals(z), Signals(t), given, 0.0).total.item() == pytest.approx(sum(losses) / 2)
    none = Batch(torch.full((3,), -1), given.sample, given.view)
    assert made(entry("hard-label"))(Signals(z), Signals(t), none, 0.0).total.item() == 0


def test_labels_of_mixed_views_count_likewise():
    z, t = random(2, 5), random(2, 5, seed=1)
    share, other = torch.tensor([0.25, 1.0], dtype=torch.float64), torch.tensor([3, 0])
    zero = torch.zeros(2, dtype=torch.long)
    given = Batch(torch.tensor([4, 2]), torch.arange(2), zero, mixed=MixedLabels(other, share))
    logs, weights = z.log_softmax(1), entropy_weights(z, t, EntropyWeighting())
    losses = [-0.25 * logs[0, 4] - 0.75 * logs[0, 3], -logs[1, 2]]
    expected = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / 2
    got = made(entry("hard-label"))(Signals(z), Signals(t), given, 0.0).total
    torch.testing.assert_close(got, expected)


def test_where_all_know_nothing_it_is_the_plain_loss_times_the_log_of_the_classes():
    """At an infinite temperature H is log K everywhere, and the weight ½ · log K · 2."""
    z, t = random(6, 5), random(6, 5, seed=1)
    plain = made("dkd")(Signals(z), Signals(t), batch(6), 0.0).total
    weighted = made(entry("dkd", temperature=1e6))(Signals(z), Signals(t), batch(6), 0.0).total
    assert weighted.item() == pytest.approx(math.log(5) * plain.item(), rel=1e-9)


def test_golden_values_of_the_reference():
    """The reference adds 1e-10 within logarithms, which changes an entropy of K classes by K · 1e-10 at most."""
    for name in ("ea_kd", "ea_kd_bound100"):
        for case in golden(name):
            keys = case.options
            objectives = [
                ObjectiveEntry.model_validate(
                    {
                        "name": "kd",
                        "temperature": keys["temperature"],
                        "weighting": {
                            "name": "entropy",
                            "temperature": keys["entropy_temperature"],
                            "bound": keys["bound"],
                        },
                    }
                )
            ]
            student, teacher = case.signals("student"), case.signals("teacher", 4)
            classes = student.logits.shape[1]
            shapes = student.shapes(), teacher.shapes()
            whole = ObjectiveSet("one", objectives, *shapes, Context(len(student.logits), classes))
            case.check(whole(student, teacher, case.batch(), 0.0).total, rel=1e-9)


def test_weights_are_constants_to_the_gradient():
    z, t = random(3, 5).requires_grad_(), random(3, 5, seed=1)
    objectives = made(entry())
    weights = entropy_weights(z, t, EntropyWeighting())
    assert not weights.requires_grad
    plain = made("kd")
    got = torch.autograd.grad(objectives(Signals(z), Signals(t), batch(3), 0.0).total, z)[0]
    for row in range(3):  # a sample's gradient is that of its own loss, times its weight
        alone = plain(Signals(z[row : row + 1]), Signals(t[row : row + 1]), batch(1), 0.0).total
        (own,) = torch.autograd.grad(alone, z)
        torch.testing.assert_close(got[row], weights[row] * own[row] / 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_logits_beyond_measure_have_finite_gradients(dtype: torch.dtype):
    z = torch.tensor([[6e4, -6e4, 0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    t = torch.tensor([[-6e4, 6e4, 0.0, 0.0, 0.0]], dtype=dtype)
    made(entry())(Signals(z), Signals(t), batch(1), 0.0).total.backward()
    assert z.grad is not None
    assert bool(z.grad.isfinite().all())


def test_any_objective_of_samples_reads_the_logits_with_it():
    assert made("fitnet").needs.teacher == {"features/block2"}
    weighted = made(entry("fitnet"))
    assert weighted.needs.teacher == {"features/block2", "logits"}
    assert "logits" in weighted.needs.student


def test_a_teacher_can_be_left_out_for_images_that_are_weighted():
    """With next to no probability none is: the sum is that of both, weighted."""
    others = {name: KnownTeacher(EVERYTHING, CONTEXT) for name in ("a", "b")}
    entries = [{**entry(), "teacher": name} for name in others]
    z, taught = random(6, 5), {name: Signals(random(6, 5, seed=i + 1)) for i, name in enumerate(others)}
    plain = made(*entries, others=others)
    dropping = made(*entries, others=others, teacher_dropping=1e-12)
    values = [each(Signals(z), Signals(z), batch(6), 0.0, taught).total for each in (plain, dropping)]
    torch.testing.assert_close(*values)


def test_the_entry_of_a_configuration_is_as_it_was_without_it():
    assert "weighting" not in ObjectiveEntry.model_validate("kd").model_dump()
    written = ObjectiveEntry.model_validate({"name": "kd", "weighting": "entropy"}).model_dump()
    assert written["weighting"] == {"name": "entropy", "temperature": 3.0, "bound": "log-classes"}
    assert ObjectiveEntry.model_validate(written).model_dump() == written


@pytest.mark.parametrize(("name", "message"), [("rkd", "rkd has no value of every sample"), ("pkt", "pkt has")])
def test_objectives_of_a_whole_batch_are_refused_by_name(name: str, message: str):
    with pytest.raises(ConfigError, match=rf"one.0.weighting: {message}(.|\n)*kd, dkd, vkd"):
        made(entry(name))


@pytest.mark.parametrize("name", ["simkd", "lift"])
def test_a_student_whose_own_classifier_does_not_learn_is_refused(name: str):
    """Its logits are those of random weights, and would say how much each sample counts."""
    made(name)
    with pytest.raises(ConfigError, match=rf"one.0.weighting: {name} puts another classifier in place"):
        made(entry(name))


@pytest.mark.parametrize("keeping", ["simkd", "lift"])
@pytest.mark.parametrize("name", ["kd", "fitnet"])
def test_nor_may_others_beside_such_a_student_go_by_that_classifier(keeping: str, name: str):
    made(keeping, name)
    with pytest.raises(ConfigError, match=rf"one.1.weighting: goes by .* in whose place {keeping} puts another"):
        made(keeping, entry(name))


def test_teachers_that_cannot_be_in_doubt_are_refused():
    with pytest.raises(ConfigError, match=r"one.0.weighting: needs the teacher's 'logits'.*which the cache does not"):
        made(entry("fitnet"), shapes=SignalShapes(0, 8, MAPS, linear=True, head_classes=5))
    with pytest.raises(ConfigError, match=r"one.0.weighting: .*it has no classifier"):
        made(entry("fitnet"), shapes=SignalShapes(0, 8, MAPS))
    with pytest.raises(ConfigError, match="same classes, got 5 and 7"):
        made(entry("fitnet"), shapes=SignalShapes(7, 8, MAPS))


@pytest.mark.parametrize("weighting", ["entropi", {"temperature": 0}, {"bound": -1}, {"bound": "log-class"}])
def test_what_is_no_weighting_is_refused(weighting: object):
    with pytest.raises(ValidationError, match="weighting"):
        ObjectiveEntry.model_validate({"name": "kd", "weighting": weighting})
