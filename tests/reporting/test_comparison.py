from __future__ import annotations

import numpy as np
import pytest
from reporting_fakes import result

from pipeline.reporting.comparison import Comparison, compare, verdicts
from pipeline.reporting.results import Evaluation
from pipeline.reporting.summary import SummaryRow, summarise


def rows(**top1: list[float]) -> list[SummaryRow]:
    students = [result("s", name, i, value) for name, values in top1.items() for i, value in enumerate(values)]
    return summarise(Evaluation(experiment="x", split="test", teacher=None, students=tuple(students)))


def comparison(difference: float, spread: float | None, seeds: tuple[int, int] = (3, 3)) -> Comparison:
    return Comparison("s", "kd", "hard", difference, spread, seeds)


@pytest.mark.parametrize(
    ("difference", "spread", "outcome", "words"),
    [
        (1.2, 0.5, "better", "kd beats hard by 1.20 points, 2.4 times the spread (3 seeds each)."),
        (0.8, 0.5, "hint of better", "is ahead of hard by 0.80 points, 1.6 times the spread"),
        (0.8, 0.5, "hint of better", "a hint, no more"),
        (0.5, 0.5, "no difference", "does not differ from hard by more than the spread"),
        (-0.3, 0.5, "no difference", "(−0.30 points; spread 0.50 points; 3 seeds each)"),
        (-0.8, 0.5, "hint of worse", "is behind hard by 0.80 points, 1.6 times the spread"),
        (-1.2, 0.5, "worse", "is worse than hard by 1.20 points, 2.4 times"),
        (0.4, 0.0, "better", "beats hard by 0.40 points, without any spread"),
        (0.0, 0.0, "no difference", "+0.00 points"),
    ],
)
def test_what_may_be_said(difference: float, spread: float, outcome: str, words: str) -> None:
    it = comparison(difference, spread)
    assert it.outcome == outcome
    assert words in it.sentence


@pytest.mark.parametrize(("difference", "words"), [(1.2, "1.20 points above"), (-3, "3.00 points below"), (0, "level")])
def test_one_seed_proves_nothing(difference: float, words: str) -> None:
    for it in (comparison(difference, None, (1, 1)), comparison(difference, 0.1, (3, 1))):
        assert it.outcome == "one seed"
        assert words in it.sentence
        assert "one seed cannot tell" in it.sentence


def test_differing_numbers_of_seeds_are_told() -> None:
    assert "5 against 3 seeds" in comparison(1, 0.2, (5, 3)).sentence


def test_numbers_come_from_the_rows_in_points() -> None:
    (it,) = compare(rows(hard=[0.60, 0.61, 0.62], kd=[0.65, 0.65, 0.68]))
    assert it.difference == pytest.approx(5.0)
    assert it.spread == pytest.approx(100 * np.std([0.65, 0.65, 0.68], ddof=1))
    assert it.seeds == (3, 3)


def test_the_baseline_is_hard_else_the_first_else_as_told() -> None:
    assert [c.baseline for c in compare(rows(kd=[0.5], hard=[0.6], lfcc=[0.7]))] == ["hard", "hard"]
    assert [c.objectives for c in compare(rows(kd=[0.5], lfcc=[0.7]))] == ["lfcc"]
    assert [c.objectives for c in compare(rows(kd=[0.5], hard=[0.6]), baseline="kd")] == ["hard"]


def test_a_student_without_the_baseline_is_not_compared() -> None:
    others = [result("t", "kd", 0, 0.5)]
    evaluation = Evaluation(experiment="x", split="test", teacher=None, students=(*others, result("s", "hard", 0, 0.5)))
    assert verdicts(summarise(evaluation)) == []


def test_verdicts_name_the_student() -> None:
    (sentence,) = verdicts(rows(hard=[0.60, 0.61], kd=[0.70, 0.71]))
    assert sentence == "s: kd beats hard by 10.00 points, 14.1 times the spread (2 seeds each)."


@pytest.mark.parametrize(("seeds", "once", "twice"), [(2, 0.33, 0.13), (3, 0.21, 0.04), (5, 0.11, 0.01)])
def test_chance_figures_that_the_report_quotes(seeds: int, once: float, twice: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100_000, seeds))
    difference = np.abs(a.mean(axis=1) - b.mean(axis=1))
    spread = np.maximum(a.std(axis=1, ddof=1), b.std(axis=1, ddof=1))
    assert (difference > spread).mean() == pytest.approx(once, abs=0.006)
    assert (difference > 2 * spread).mean() == pytest.approx(twice, abs=0.006)
