from __future__ import annotations

import io
from dataclasses import replace

import pytest
from reporting_fakes import experiment
from rich.console import Console

from pipeline.reporting.report import summary
from pipeline.reporting.summary import Stat, summarise
from pipeline.reporting.tables import cells, count, headings, markdown, note, rounded_seconds, stat, terminal


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0, "0"),
        (7, "7"),
        (7.834, "7.83"),
        (41.25, "41.2"),
        (999, "999"),
        (999.7, "1.00 k"),
        (278_324, "278 k"),
        (999_600, "1.00 M"),
        (41_410_000, "41.4 M"),
        (100e6, "100 M"),
        (4.1e9, "4.10 G"),
        (2.5e13, "25.0 T"),
        (float("inf"), "–"),
    ],
)
def test_counts(value: float | None, text: str) -> None:
    assert count(value) == text


def test_spreads_and_durations() -> None:
    assert stat(Stat(0.712, 0.0031), 100) == "71.20 ± 0.31"
    assert stat(Stat(0.712, None), 100) == "71.20"
    assert stat(None, 100) == "–"
    assert [rounded_seconds(s) for s in (None, 3.21, 42, 125)] == ["–", "3.2 s", "42 s", "2 min 05 s"]


def test_the_teacher_comes_first() -> None:
    evaluation, _ = experiment()
    table = cells(evaluation, summarise(evaluation))
    assert table[0][0] == "teacher (cifar_resnet56)"
    assert table[0][3] == "72.00"
    assert [line[:3] for line in table[1:]] == [
        ["resnet20", "hard", "3"],
        ["resnet20", "kd", "3"],
        ["resnet8x4", "hard", "3"],
        ["resnet8x4", "kd", "3"],
    ]
    assert {len(line) for line in table} == {len(headings(evaluation))}


def test_no_teacher_no_row() -> None:
    evaluation, _ = experiment(teacher=False)
    assert len(cells(evaluation, summarise(evaluation))) == 4


def test_markdown_cells_cannot_break_out() -> None:
    evaluation, _ = experiment(["a|b\n| c | <b>*x*"], ["hard", "k_d"])
    lines = markdown(evaluation, summarise(evaluation)).splitlines()
    assert lines[1].count("---") == len(headings(evaluation))
    assert {line.replace("\\|", "").count("|") for line in lines[:5]} == {len(headings(evaluation)) + 1}
    assert r"a\|b \| c \| \<b>\*x\*" in lines[3]
    assert lines[-1] == "Split 'test', 10,000 images. Mean ± sample standard deviation over seeds."


def test_one_seed_is_said() -> None:
    evaluation, _ = experiment(seeds=1)
    text = markdown(evaluation, summarise(evaluation))
    assert "One seed has no spread." in text
    assert "±" not in text


def test_the_terminal_shows_names_as_they_are() -> None:
    evaluation, _ = experiment(["[red]x[/red]"], name="[bold]name")
    stream = io.StringIO()
    Console(width=200, file=stream).print(terminal(evaluation, summarise(evaluation)))
    text = stream.getvalue()
    assert "[red]x[/red]" in text
    assert "[bold]name" in text
    assert "cifar_resnet56" in text


def test_agreements_of_two_kinds_in_one_column_are_told() -> None:
    evaluation, _ = experiment(students=("resnet20", "resnet8x4"), seeds=1)
    assert "Agreement" not in note(evaluation, summarise(evaluation))
    by_neighbours = replace(evaluation.students[0].metrics, top1=None, kl=None)
    students = (evaluation.students[0].model_copy(update={"metrics": by_neighbours}), *evaluation.students[1:])
    mixed = evaluation.model_copy(update={"students": students})
    assert "Agreement is by top-1 where" in note(mixed, summarise(evaluation))


def test_agreement_with_named_teachers_has_a_column_of_each() -> None:
    evaluation, _ = experiment(seeds=2)
    values = iter([0.5, 0.7, 0.6, 0.6, 0.9, 0.9, 0.8, 0.8])
    students = tuple(each.model_copy(update={"agreements": {"clip": next(values)}}) for each in evaluation.students)
    assert evaluation.teacher is not None
    teacher = evaluation.teacher.model_copy(update={"agreements": {"clip": 0.25}})
    evaluation = evaluation.model_copy(update={"students": students, "teacher": teacher})
    at = headings(evaluation).index("agreement with clip (%)")
    assert at == headings(evaluation).index("agreement (%)") + 1
    column = [line[at] for line in cells(evaluation, summarise(evaluation))]
    assert column == ["25.00", "60.00 ± 14.14", "60.00 ± 0.00", "90.00 ± 0.00", "80.00 ± 0.00"]
    numbers = summary(evaluation, summarise(evaluation))["students"]["resnet20"]["hard"]
    assert numbers["agreement_with_clip"] == pytest.approx(0.6)
    partly = evaluation.model_copy(
        update={"students": (*students[:-1], evaluation.students[-1].model_copy(update={"agreements": {}}))}
    )
    assert cells(partly, summarise(partly))[-1][at] == "–"
