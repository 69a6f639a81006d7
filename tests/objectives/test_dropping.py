"""The dropping of teachers: what is kept, how large the sum is, how often, and that seed and step alone decide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pipeline.objectives import Batch, Context, ObjectiveSet, ObjectiveSetConfig
from pipeline.objectives.config import ObjectiveEntry
from pipeline.objectives.dropping import TeacherDropping, Weighted
from pipeline.objectives.set import KnownTeacher
from pipeline.signals import Signals, SignalShapes

STEPS = 2000


def terms(**losses: float) -> list[Weighted]:
    """A term for each teacher, and one that no dropping concerns."""
    return [(None, torch.tensor(10.0)), *((name, torch.tensor(value)) for name, value in losses.items())]


def kept(dropping: TeacherDropping, step: int, **losses: float) -> dict[str, float]:
    """What the terms became, by teacher."""
    return {str(name): float(value) for name, value in dropping.choose(terms(**losses), step)[0]}


def test_the_furthest_is_always_kept_and_the_others_with_their_probability():
    dropping = TeacherDropping(["a", "b", "c"], 0.25, seed=3)
    found = [dropping.choose(terms(a=1.0, b=3.0, c=2.0), step)[1] for step in range(STEPS)]
    shares = {name: np.mean([float(each[name]) for each in found]) for name in found[0]}
    assert shares["dropped/b"] == 0
    for name in ("dropped/a", "dropped/c"):
        assert shares[name] == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / STEPS))
    both = np.mean([float(each["dropped/a"] * each["dropped/c"]) for each in found])
    assert both == pytest.approx(1 / 16, abs=4 * np.sqrt(1 / 16 * 15 / 16 / STEPS))  # each for itself


def test_the_sum_is_that_of_the_kept_times_all_by_kept():
    dropping = TeacherDropping(["a", "b", "c"], 0.5, seed=0)
    seen = set()
    for step in range(40):
        chosen, dropped = dropping.choose(terms(a=1.0, b=3.0, c=2.0), step)
        left = [name for name in "abc" if not dropped[f"dropped/{name}"]]
        seen.add("".join(left))
        expected = 3 / len(left) * sum({"a": 1.0, "b": 3.0, "c": 2.0}[name] for name in left)
        assert float(sum(value for _, value in chosen)) == pytest.approx(10 + expected)
    assert seen == {"b", "ab", "bc", "abc"}


def test_a_teacher_of_several_objectives_counts_by_their_sum():
    dropping = TeacherDropping(["a", "b"], 1.0, seed=0)
    chosen, _ = dropping.choose([*terms(a=2.0, b=3.0), ("a", torch.tensor(2.0))], 0)
    assert [float(value) for _, value in chosen] == [10, 4, 0, 4]


@pytest.mark.parametrize("probability", [0.0, 1e-9])
def test_without_dropping_all_count_once(probability: float):
    dropping = TeacherDropping(["a", "b"], probability, seed=0)
    assert kept(dropping, 5, a=1.0, b=3.0) == {"None": 10.0, "a": 1.0, "b": 3.0}


def test_teachers_that_are_off_do_not_count():
    dropping = TeacherDropping(["a", "b", "c"], 1.0, seed=0)
    assert kept(dropping, 0, a=1.0, c=5.0) == {"None": 10.0, "a": 0.0, "c": 10.0}
    assert dropping.choose(terms(), 0) == (terms(), {})


def test_it_depends_on_seed_and_step_alone():
    one, two, other = (TeacherDropping(names, 0.5, seed) for names, seed in (("ab", 0), ("ba", 0), ("ab", 1)))
    chosen = [[kept(each, step, a=1.0, b=3.0)["a"] for step in range(64)] for each in (one, two, other)]
    torch.rand(3)
    assert [kept(one, step, a=1.0, b=3.0)["a"] for step in reversed(range(64))] == chosen[0][::-1]
    assert chosen[0] == chosen[1] != chosen[2]


def signals(width: int, seed: int) -> Signals:
    generator = torch.Generator().manual_seed(seed)
    return Signals(torch.randn(6, 4, generator=generator), torch.randn(6, width, generator=generator))


def test_a_dropped_teacher_sends_no_gradient():
    entries = [ObjectiveEntry.model_validate({"name": "kd", "teacher": name}) for name in ("a", "b")]
    shapes, context = SignalShapes(4, 8), Context(6, 4, torch.zeros(6, dtype=torch.int64))
    known = {"a": KnownTeacher(shapes, context), "b": KnownTeacher(shapes, context)}
    chosen = ObjectiveSet("t", entries, shapes, shapes, context, known, teacher_dropping=1.0)
    student = signals(8, 0)
    others = {"a": signals(8, 1), "b": signals(8, 2)}
    batch = Batch(torch.zeros(6, dtype=torch.int64), torch.arange(6), torch.zeros(6, dtype=torch.int64))

    def gradient(objectives: ObjectiveSet) -> tuple[Tensor, dict[str, Tensor]]:
        logits = student.logits.clone().requires_grad_()
        value = objectives(Signals(logits, student.embedding), others["a"], batch, 0.0, others)
        value.total.backward()
        assert logits.grad is not None
        return logits.grad, value.terms

    found, values = gradient(chosen)
    further, nearer = sorted("ab", key=lambda name: -float(values[f"kd-{name}/kl"]))
    assert values[f"dropped/{nearer}"] == 1
    assert values[f"dropped/{further}"] == 0
    alone = [entry for entry in entries if entry.teacher == further]
    expected, _ = gradient(ObjectiveSet("t", alone, shapes, shapes, context, known))
    torch.testing.assert_close(found, 2 * expected)


def test_one_teacher_cannot_be_dropped():
    for entries in ([{"name": "kd", "teacher": "a"}, "vkd"], [{"name": "kd", "teacher": "a"}]):
        with pytest.raises(ValidationError, match="two teachers or more"):
            ObjectiveSetConfig.model_validate({"teacher_dropping": 0.5, "objectives": entries})
    with pytest.raises(ValidationError):
        ObjectiveSetConfig.model_validate({"teacher_dropping": 1.5, "objectives": ["kd"]})
