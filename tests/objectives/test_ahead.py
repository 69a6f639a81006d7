from __future__ import annotations

import gc
import threading

import pytest

from pipeline.objectives.ahead import Ahead


def test_the_next_step_is_made_in_a_thread_and_only_once() -> None:
    """Another view than the one before is made where it is asked for, and so is a step that is asked for again."""
    made: list[tuple[int, int, str]] = []

    def make(step: int, view: int) -> tuple[int, int]:
        made.append((step, view, "thread" if threading.current_thread().name.startswith("objective") else "here"))
        return step, view

    drawing = Ahead(make)
    asked = [(0, 5), (1, 5), (2, 5), (3, 6), (4, 6), (4, 6)]
    assert [drawing.take(*each, ahead=True) for each in asked] == asked
    assert [each[:2] for each in made if each[2] == "here"] == [(0, 5), (3, 6), (4, 6)]
    assert drawing.take(5, 6, ahead=False) == (5, 6)
    beside = [each[:2] for each in made if each[2] == "thread"]
    assert beside == [(1, 5), (2, 5), (3, 5), (4, 6), (5, 6)]
    made.clear()
    assert drawing.take(6, 6, ahead=False) == (6, 6)
    assert made == [(6, 6, "here")]


def test_an_error_is_raised_where_its_step_asks_and_no_thread_stays() -> None:
    before = set(threading.enumerate())

    def make(step: int, view: int) -> int:
        if step == 2:
            raise OSError("step 2 cannot be read")
        return step

    drawing = Ahead(make)
    assert [drawing.take(step, 0, ahead=True) for step in (0, 1)] == [0, 1]
    with pytest.raises(OSError, match="step 2"):
        drawing.take(2, 0, ahead=True)
    assert drawing.take(3, 0, ahead=True) == 3
    (thread,) = set(threading.enumerate()) - before
    del drawing
    gc.collect()  # the error and what raised it hold each other
    thread.join(10)
    assert not thread.is_alive()
