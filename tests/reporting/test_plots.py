from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from matplotlib.figure import Figure
from reporting_fakes import experiment

from pipeline.reporting.plots import draw_costs, draw_curves, overview
from pipeline.reporting.results import Evaluation, HistoryTable
from pipeline.reporting.styles import Styles
from pipeline.reporting.summary import SummaryRow, summarise


def learning_curves(rows: Sequence[SummaryRow], histories: Sequence[HistoryTable]) -> Figure:
    students = list(dict.fromkeys(row.student for row in rows))
    figure = Figure()
    draw_curves(figure, Styles.of(rows), students, histories, ["holdout_top1", "loss"], len(students))
    return figure


def accuracy_against_cost(evaluation: Evaluation, rows: Sequence[SummaryRow]) -> Figure:
    figure = Figure()
    draw_costs(figure, Styles.of(rows), evaluation, rows)
    return figure


def test_a_curve_is_the_mean_over_seeds() -> None:
    evaluation, histories = experiment(["resnet20"], ["hard", "kd"], 3)
    figure = learning_curves(summarise(evaluation), histories)
    accuracy, loss = figure.axes
    for k, line in enumerate(accuracy.lines):
        mine = [h.columns["holdout_top1"] for h in histories[3 * k : 3 * k + 3]]
        np.testing.assert_allclose(np.asarray(line.get_ydata()), 100 * np.mean(mine, axis=0))
        np.testing.assert_array_equal(np.asarray(line.get_xdata()), np.arange(1, 13))
    assert len(accuracy.collections) == 2  # a band for every set
    assert len(loss.lines) == 2


def test_one_seed_has_a_line_and_no_band() -> None:
    evaluation, histories = experiment(["resnet20"], ["hard"], 1)
    figure = learning_curves(summarise(evaluation), histories)
    assert [len(panel.lines) for panel in figure.axes] == [1, 1]
    assert [len(panel.collections) for panel in figure.axes] == [0, 0]


def test_epochs_without_a_holdout_value_are_left_out() -> None:
    evaluation, histories = experiment(["resnet20"], ["hard"], 2)
    for history in histories:
        history.columns["holdout_top1"][::2] = np.nan
    figure = learning_curves(summarise(evaluation), histories)
    (line,) = figure.axes[0].lines
    np.testing.assert_array_equal(np.asarray(line.get_xdata()), np.arange(2, 13, 2))


def test_losses_far_apart_share_a_logarithmic_axis() -> None:
    evaluation, histories = experiment(["resnet20"], ["hard", "kd"], 1)
    figure = learning_curves(summarise(evaluation), histories)
    assert figure.axes[1].get_yscale() == "linear"
    histories[1].columns["loss"][:] *= 100
    figure = learning_curves(summarise(evaluation), histories)
    assert figure.axes[1].get_yscale() == "log"


def test_every_final_accuracy_is_inside_its_panel() -> None:
    evaluation, histories = experiment(["resnet20", "resnet8"], ["hard", "kd"], 2, epochs=60)
    histories[0].columns["holdout_top1"][10:] = 0.1  # a run that collapsed
    figure = learning_curves(summarise(evaluation), histories)
    for panel in figure.axes[:2]:
        low, high = panel.get_ylim()
        assert all(low < np.asarray(line.get_ydata())[12:].min() for line in panel.lines)
        assert all(np.asarray(line.get_ydata()).max() < high for line in panel.lines)


def test_points_stand_at_top1_and_around_the_cost() -> None:
    evaluation, _ = experiment(["resnet20"], ["hard", "kd", "lfcc"], 2)
    rows = summarise(evaluation)
    (panel,) = accuracy_against_cost(evaluation, rows).axes
    points = [bar.lines[0].get_xydata()[0] for bar in panel.containers]
    assert [y for _, y in points] == pytest.approx([100 * row.score.mean for row in rows])
    assert points[1][0] == pytest.approx(41_410_000)
    assert points[0][0] * points[2][0] == pytest.approx(41_410_000**2)
    assert points[2][0] / points[0][0] < 1.1


def test_equal_results_are_not_blown_up() -> None:
    evaluation, _ = experiment(["resnet20"], ["hard"], 1, teacher=False)
    (panel,) = accuracy_against_cost(evaluation, summarise(evaluation)).axes
    low, high = panel.get_ylim()
    assert high - low >= 3


def test_parameters_stand_in_for_unknown_macs() -> None:
    evaluation, _ = experiment()
    assert evaluation.teacher is not None
    teacher = evaluation.teacher.model_copy(update={"macs": None})
    evaluation = evaluation.model_copy(update={"teacher": teacher})
    (panel,) = accuracy_against_cost(evaluation, summarise(evaluation)).axes
    assert panel.get_xlabel() == "parameters"


@pytest.mark.parametrize("students", [1, 3, 5])
def test_the_overview_shows_every_student(students: int) -> None:
    evaluation, histories = experiment(list("abcde")[:students], ["hard"], 1)
    figure = overview(evaluation, summarise(evaluation), histories)
    assert figure.get_size_inches()[0] == 14
    titles = [panel.get_title() for panel in figure.axes]
    assert [title for title in titles if title] == list("abcde")[:students]
