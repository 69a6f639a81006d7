"""The front and the student to ship, against a search of all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from reporting_fakes import experiment, result

from pipeline.reporting import answer
from pipeline.reporting.front import choose_student, front_of, pareto_front
from pipeline.reporting.results import Evaluation, StudentResult
from pipeline.reporting.summary import summarise


def beaten(point: tuple[float, float], by: tuple[float, float]) -> bool:
    return by[0] <= point[0] and by[1] >= point[1] and by != point


@pytest.mark.parametrize("seed", range(40))
def test_the_front_is_what_no_other_point_beats(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(0, 12))
    # Few values, so that points are often equal in one coordinate, or in both.
    points = [(float(a), float(b)) for a, b in generator.integers(0, 5, (count, 2))]
    expected = [i for i, point in enumerate(points) if not any(beaten(point, by=other) for other in points)]
    found = pareto_front(points)
    assert sorted(found) == expected
    assert [points[i][0] for i in found] == sorted(points[i][0] for i in found)


def test_a_student_of_unknown_cost_is_not_on_the_front() -> None:
    rows = summarise(experiment(["resnet20", "resnet8x4"], ["hard"])[0])
    assert front_of(rows, [None, 5.0]) == [1]
    assert front_of(rows, [None, None]) == []


def measured(*students: tuple[str, int, tuple[float, ...]]) -> Evaluation:
    """An evaluation of students with names, MACs and top-1 of every seed."""
    found: list[StudentResult] = [
        result(name, "kd", seed, top1).model_copy(update={"macs": cost})
        for name, cost, scores in students
        for seed, top1 in enumerate(scores)
    ]
    return Evaluation(experiment="e", split="test", teacher=None, students=tuple(found))


@pytest.mark.parametrize(
    ("students", "shipped", "best"),
    [
        # 0.5 points apart. The standard error is sqrt(2) points by sqrt(2) seeds, which is 1: the cheaper one.
        ([("big", 100, (0.80, 0.82)), ("small", 10, (0.795, 0.815))], "small", "big"),
        # 10 points apart: no doubt.
        ([("big", 100, (0.80, 0.82)), ("small", 10, (0.69, 0.71))], "big", "big"),
        # 0.7 points apart: within 1 point of two seeds, but of four such ones it is 2 / sqrt(3) / 2 = 0.58.
        ([("big", 100, (0.80, 0.82)), ("small", 10, (0.793, 0.813))], "small", "big"),
        ([("big", 100, (0.80, 0.82) * 2), ("small", 10, (0.793, 0.813) * 2)], "big", "big"),
        # 2 points behind, and so unsteady that it can be told from nothing: that is no reason to ship it.
        ([("big", 100, (0.80, 0.82)), ("small", 10, (0.70, 0.88))], "big", "big"),
        # The best mean is uncertain itself, by 3 points: a cheaper and steadier one that is 2 behind is shipped.
        ([("big", 100, (0.78, 0.84)), ("small", 10, (0.789, 0.791))], "small", "big"),
        # One seed has no spread, so only equals are level.
        ([("big", 100, (0.80,)), ("small", 10, (0.799,))], "big", "big"),
        ([("big", 100, (0.80,)), ("small", 10, (0.80,))], "small", "small"),
        ([("big", 100, (0.80, 0.82)), ("small", 10, (0.809,))], "big", "big"),
    ],
)
def test_of_those_that_cannot_be_told_apart_the_cheapest_is_shipped(
    students: list[tuple[str, int, tuple[float, ...]]], shipped: str, best: str
) -> None:
    choice = choose_student(summarise(measured(*students)))
    assert choice is not None
    assert (choice.row.student, choice.best.student) == (shipped, best)
    assert choice.behind >= 0


def test_the_page_says_what_the_yardstick_is() -> None:
    close = measured(("big", 100, (0.80, 0.82)), ("small", 10, (0.795, 0.815)))
    said = " ".join(answer.ship_sentence(close, summarise(close)))
    assert "big by kd has the highest mean, 81.00 ± 1.41 %, but it is ahead by 0.50 points" in said
    assert "no more than chance may give (1.00), and small takes 10 times fewer multiply-accumulates" in said
    choice = choose_student(summarise(close))
    assert choice is not None
    reasons = answer.reasons(close, summarise(close), choice, ())
    assert any("the standard error of the best mean, 1.00 points" in each for each in reasons)
    alone = measured(("big", 100, (0.80,)), ("small", 10, (0.70,)))
    choice = choose_student(summarise(alone))
    assert choice is not None
    assert not any("standard error" in each for each in answer.reasons(alone, summarise(alone), choice, ()))


def test_without_students_there_is_nothing_to_ship() -> None:
    assert choose_student([]) is None
