from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from pipeline.errors import ConfigError
from pipeline.objectives import Context, KnownTeacher, ObjectiveEntry, ObjectiveSet, Schedule
from pipeline.signals import SignalShapes


def factors(**keys: object) -> list[float]:
    return [Schedule.model_validate(keys).factor(step / 8) for step in range(9)]


def test_without_a_schedule_the_weight_is_constant():
    assert factors() == [1.0] * 9


def test_warmup_is_linear():
    assert factors(warmup=0.5) == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1]


def test_off_in_the_last_epochs():
    assert factors(off_after=0.75) == [1, 1, 1, 1, 1, 1, 0, 0, 0]


def test_on_in_the_last_epochs():
    assert factors(on_after=0.5) == [0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert factors(on_after=0.25, off_after=0.75) == [0, 0, 1, 1, 1, 1, 0, 0, 0]


def test_the_warmup_begins_where_the_weight_is_switched_on():
    assert factors(on_after=0.25, warmup=0.5) == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_a_late_schedule_is_an_early_one_moved():
    """After 3/8 the factors of a schedule of the rest of training, 5/8 of it."""
    late = factors(on_after=0.375, warmup=0.125, off_after=0.875, decay="cosine")
    early = Schedule(warmup=1 / 5, off_after=4 / 5, decay="cosine")
    assert late == pytest.approx([0, 0, 0, *(early.factor(step / 5) for step in range(6))], abs=1e-12)


def test_cosine_falls_to_zero_at_the_end():
    half = (1 + math.sqrt(0.5)) / 2
    assert factors(decay="cosine")[::2] == pytest.approx([1, half, 0.5, 1 - half, 0], abs=1e-12)


def test_cosine_starts_where_the_warmup_ends_and_ends_where_it_is_off():
    wanted = [0, 0.5, 1, (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2, 0, 0, 0]
    assert factors(warmup=0.25, off_after=0.75, decay="cosine") == pytest.approx(wanted, abs=1e-12)


def test_a_weight_that_never_gets_there_is_refused():
    with pytest.raises(ValidationError, match="never be reached"):
        Schedule(warmup=0.9, off_after=0.5)
    with pytest.raises(ValidationError, match="never be reached"):
        Schedule(on_after=0.5, warmup=0.5)
    Schedule(on_after=0.5, warmup=0.4)


@pytest.mark.parametrize("on_after", [0.5, 0.75])
def test_a_weight_that_is_always_off_is_refused(on_after: float):
    with pytest.raises(ValidationError, match="on_after must be before off_after"):
        Schedule(on_after=on_after, off_after=0.5)
    with pytest.raises(ValidationError, match="on_after"):
        Schedule(on_after=1.0)


@pytest.mark.parametrize("classes", [3, 5])
def test_a_student_keeps_the_classifier_of_a_named_teacher_if_it_has_the_classes_of_the_data(classes: int):
    context = Context(6, 3)
    student = SignalShapes(3, 8, {"block1": (8, 4, 4)})
    teacher = SignalShapes(classes, 8, {"block1": (8, 4, 4)}, linear=True, head_classes=classes)
    entries = [ObjectiveEntry.model_validate({"name": "simkd", "teacher": "a"})]
    known = {"a": KnownTeacher(teacher, context)}
    if classes == context.classes:
        assert ObjectiveSet("t", entries, student, student, context, known).teacher_of_kept == "a"
    else:
        with pytest.raises(ConfigError, match="would end in the classifier of 'a', which has other classes"):
            ObjectiveSet("t", entries, student, student, context, known)
