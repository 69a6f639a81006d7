"""The score of a task: version 0.1 wrote top-1 in the same words."""

from __future__ import annotations

from dataclasses import replace

from pipeline.measuring.score import AGREEMENT, KNN, SCORES, TOP1
from pipeline.training.history import History


def test_top1_is_written_as_it_always_was():
    assert (TOP1.name, TOP1.column, TOP1.heading, TOP1.text(0.712)) == ("top1", "holdout_top1", "top-1 (%)", "71.20%")


def test_the_score_that_tells_most_comes_first():
    assert SCORES == (TOP1, KNN, AGREEMENT)


def test_epochs_are_ranked_by_the_direction_of_the_score():
    rows = [{"epoch": 1.0, "holdout_error": 0.4}, {"epoch": 2.0, "holdout_error": 0.2}, {"epoch": 3.0}]
    lower = replace(TOP1, name="error", higher_is_better=False)
    assert History(rows, lower).best() == 2
    assert History(rows, replace(lower, higher_is_better=True)).best() == 1
    assert History(rows).best() == 0  # nothing of top-1
