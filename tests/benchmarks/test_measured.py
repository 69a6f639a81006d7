"""The tables of the documentation are those of what was measured, and what was measured is kept as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.measuring.measured import Metrics
from pipeline.reporting.results import Evaluation, RunMetrics, StudentResult, TeacherResult

measured = pytest.importorskip("measured")

PARTS = ("tiny", "tiny.int8")


@pytest.mark.parametrize("page", sorted(measured.DOCS.glob("*.md")), ids=lambda page: page.name)
def test_tables_are_those_of_what_was_measured(page: Path) -> None:
    """If this fails: `python benchmarks/measured.py tables`."""
    text = page.read_text()
    assert measured.with_tables(text, page.name) == text


@pytest.mark.parametrize("kept", sorted((measured.DOCS / "measured").glob("*.json")), ids=lambda kept: kept.name)
def test_what_was_measured_is_of_a_configuration(kept: Path) -> None:
    evaluation = Evaluation.read(kept)
    assert evaluation.experiment == kept.stem
    config = kept.stem.partition(".")[0]  # without the part
    assert (measured.DOCS.parent / "configs" / f"{config}.yaml").exists()
    whole = 2485 if config == "grocery" else 10_000  # images of the test split
    assert {student.metrics.count for student in evaluation.students} == {whole}
    assert all(student.images_per_second is None and student.train_seconds is None for student in evaluation.students)


def test_students_are_added_and_take_the_place_of_their_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "DOCS", tmp_path)
    (tmp_path / "measured").mkdir()
    add(tmp_path, student("kd", 0, 0.5), student("hard", 0, 0.25))
    add(tmp_path, student("kd", 1, 0.6), student("hard", 0, 0.3))
    kept = Evaluation.read(tmp_path / "measured/tiny.json")
    assert [(s.objectives, s.seed, s.metrics.top1) for s in kept.students] == [
        ("hard", 0, 0.3),
        ("kd", 0, 0.5),
        ("kd", 1, 0.6),
    ]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- measured: tiny small -->\nold\n<!-- end -->\nafter\n")
    assert CliRunner().invoke(measured.main, ["tables"]).exit_code == 0
    lines = page.read_text().splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after"
    assert [line for line in lines if line.startswith("| ")][2:] == [
        "| kd | 2 | 55.00 ± 7.07 | 50.00 ± 0.00 | 1.000 ± 0.000 | 10.00 ± 0.00 |",
        "| hard | 1 | 30.00 | 50.00 | 1.000 | 10.00 |",
    ]


def test_parts_of_an_experiment_are_filed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "DOCS", tmp_path)
    (tmp_path / "measured").mkdir()
    add(tmp_path, student("kd", 0, 0.5))
    add(tmp_path, student("kd", 0, 0.25), part="int8")
    tops = {name: Evaluation.read(tmp_path / f"measured/{name}.json").students[0].metrics.top1 for name in PARTS}
    assert tops == {"tiny": 0.5, "tiny.int8": 0.25}
    page = "<!-- measured: tiny.int8 small -->\n<!-- end -->\n"
    assert "| kd | 1 | 25.00 | 50.00 | 1.000 | 10.00 |" in measured.with_tables(page, "page.md")


def test_students_of_many_families_have_a_column_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: KD gains 10 and -4 points over labels alone. RSD gains 5, but one student does not have it."""
    monkeypatch.setattr(measured, "DOCS", tmp_path)
    (tmp_path / "measured").mkdir()
    wide = [student(name, 0, top1, "wide") for name, top1 in (("hard-cached", 0.34), ("kd", 0.3))]
    add(tmp_path, *wide, *(student(name, 0, top1) for name, top1 in (("hard-cached", 0.2), ("kd", 0.3), ("rsd", 0.25))))
    page = measured.with_tables("<!-- students: tiny -->\n<!-- end -->\n", "page.md")
    assert [line for line in page.splitlines() if line.startswith("| ")] == [
        "| objectives | small | wide | mean gain |",
        "| --- | ---: | ---: | ---: |",
        "| kd | 30.00 | 30.00 | +3.00 |",
        "| hard-cached | 20.00 | 34.00 |  |",
        "| rsd | 25.00 | - |  |",
    ]


def test_the_last_column_of_methods_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "DOCS", tmp_path)
    (tmp_path / "measured").mkdir()
    add(tmp_path, student("kd", 0, 0.5), student("hard-cached", 0, 0.25), experiment=measured.METHODS)
    rows = ("| `hard-label` | a | b | c | d | e |", "| `kd` | a | b | c | d | e |", "| `dkd` | a | b | c | d | e |")
    other = "| `kd` | 4 ms | 1.5 |\n| plain | a | b | c | d | e | 4 |\n"
    page = "".join(f"{row} 1 ± 2 |\n" for row in rows) + other
    filled = "".join(f"{row} {top1} |\n" for row, top1 in zip(rows, ("25.00", "50.00", "-"), strict=True)) + other
    assert measured.with_tables(page, "methods.md") == filled
    assert measured.with_tables(page, "other.md") == page


def test_constants_are_compared_by_the_holdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "DOCS", tmp_path)
    (tmp_path / "measured").mkdir()
    for name, top1 in {"tas-0.3": 0.25, "tas-1": 0.3, "cat-kd-10": 0.5}.items():
        folder = tmp_path / "runs/students/small" / name / "seed-0"
        folder.mkdir(parents=True)
        run = RunMetrics(
            student="small",
            objectives=name,
            seed=0,
            model="m",
            parameters=1,
            epochs=2,
            train_seconds=3.0,
            images_per_second=4.0,
            holdout=Metrics(top1, 0.9, 1.0, 0.1, 0.5, 1.0, 100),
            final_loss=0.5,
        )
        (folder / "metrics.json").write_text(run.to_text())
    assert CliRunner().invoke(measured.main, ["chosen", str(tmp_path / "runs")]).exit_code == 0
    page = measured.with_tables("<!-- chosen: runs -->\n<!-- end -->\n", "page.md")
    assert page.splitlines()[3:-1] == ["| cat-kd | **10: 50.00** |", "| tas | 0.3: 25.00, **1: 30.00** |"]


def test_the_order_of_methods_is_compared_by_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "DOCS", tmp_path)

    def row(name: str, published: str, here: str) -> str:
        return f"| `{name}` | a | b | c | d | {published} | {here} |\n"

    logits = [row("kd", "70.66 a", "20.0"), row("dkd", "71.97 b", "30.0 ± 1.0"), row("at", "70.55 a", "25.0")]
    logits += [row("mlld", "72.19 c, 480 epochs", "1"), row("ab", "-", "9.0")]
    (tmp_path / "methods.md").write_text("".join(["## Logits\n", *logits]))
    said = CliRunner().invoke(measured.main, ["order"]).output.splitlines()
    assert [line.split()[:3] for line in said[:3]] == [
        ["1.0", "1.0", "dkd"],
        ["2.0", "3.0", "kd"],
        ["3.0", "2.0", "at"],
    ]
    assert said[3:] == ["all: Spearman's rho of 3 methods 0.50"]  # 1 - 6 (0 + 1 + 1) / (3 · 8)
    maps = [row(name, f"6{k}.0 a", f"{k * k}.0") for k, name in enumerate(("ft", "sp", "nst", "vid", "ofd"))]
    (tmp_path / "methods.md").write_text("".join(["## Logits\n", *logits, "## Maps\n", *maps]))
    said = CliRunner().invoke(measured.main, ["order"]).output.splitlines()
    assert [line.split(":")[0] for line in said[8:]] == ["all", "source a", "Maps"]
    assert said[10] == "Maps: Spearman's rho of 5 methods 1.00"
    assert measured.ranks([5.0, 7.0, 5.0]) == [2.5, 1.0, 2.5]


def student(objectives: str, seed: int, top1: float, name: str = "small") -> StudentResult:
    metrics = Metrics(top1, 0.9, 1.0, 0.1, 0.5, 1.0, 100)
    return StudentResult(
        student=name,
        objectives=objectives,
        seed=seed,
        model="m",
        metrics=metrics,
        parameters=1,
        macs=1,
        images_per_second=7.0,
        train_seconds=8.0,
    )


def add(folder: Path, *students: StudentResult, experiment: str = "tiny", part: str | None = None) -> None:
    teacher = TeacherResult(model="t", metrics=students[0].metrics)
    evaluation = Evaluation(experiment=experiment, split="test", teacher=teacher, students=students)
    (folder / "evaluation.json").write_text(evaluation.to_text())
    result = CliRunner().invoke(
        measured.main, ["add", str(folder / "evaluation.json"), *(["--part", part] if part else [])]
    )
    assert result.exit_code == 0, result.output
