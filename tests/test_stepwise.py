"""Work that is done a part at a time is the same as done at once."""

from __future__ import annotations

import pickle

import pytest

from pipeline.stepwise import Stepwise, all_at_once
from pipeline.training import loop
from stages import train_student

LEFT: list[str] = []


def counted_by_steps(parts: int, *, fails_at: int | None = None) -> Stepwise[int]:
    """Count to a number; yield after each."""
    try:
        for part in range(parts):
            if part == fails_at:
                raise KeyboardInterrupt
            yield
    finally:
        LEFT.append("left")
    return parts


counted = all_at_once(counted_by_steps)


def test_all_parts_are_done_and_the_result_is_returned() -> None:
    assert counted(3) == 3
    assert counted(0) == 0


def test_what_ends_a_part_ends_the_work_and_what_it_holds_is_let_go() -> None:
    LEFT.clear()
    with pytest.raises(KeyboardInterrupt) as kept:
        counted(3, fails_at=1)
    assert LEFT == ["left"]
    assert kept.value.__traceback__ is not None


@pytest.mark.parametrize("function", [counted, loop.train, train_student.run])
def test_a_function_has_the_name_by_which_it_is_called_and_can_be_pickled(function: object) -> None:
    assert not function.__name__.endswith("_by_steps")  # type: ignore[attr-defined]
    assert pickle.loads(pickle.dumps(function)) is function
