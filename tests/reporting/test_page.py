"""The page says what the evaluation's file says: read by a parser of HTML, compared with figures worked out here."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reporting_fakes import experiment

from pipeline.errors import DataError
from pipeline.reporting.exports import read_exports
from pipeline.reporting.page import SHOWN, Findings, page, shown_rows
from pipeline.reporting.results import Evaluation
from pipeline.reporting.summary import summarise


class Table(HTMLParser):
    """Collects the rows of the table with an id: texts and the values that they are sorted by."""

    def __init__(self, html: str, name: str) -> None:
        super().__init__()
        self.heads: list[str] = []
        self.rows: list[list[tuple[str, str | None]]] = []
        self._name, self._inside, self._cell = name, False, False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside |= tag == "table" and given.get("id") == self._name
        if not self._inside:
            return
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", given.get("data-value")))
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._inside = False
        if tag in ("td", "th"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._inside and self._cell:
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, value)


@pytest.fixture(scope="module")
def made() -> tuple[Evaluation, str]:
    evaluation, histories = experiment(["resnet20", "resnet8x4", "tiny"], ["hard", "kd", "lfcc"])
    return evaluation, page(Findings(evaluation, histories, "a: 1\n"))


def test_every_cell_of_the_table_is_the_figure_of_the_evaluation(made: tuple[Evaluation, str]) -> None:
    evaluation, html = made
    students = json.loads(evaluation.to_text())["students"]
    heads, teacher, *rows = Table(html, "table").rows
    names = [text for text, _ in heads]
    assert names[:5] == ["student", "objectives", "seeds", "top-1 (%)", "gain over hard (points)"]
    assert len(rows) == 9
    assert "72.00" in [text for text, _ in teacher]
    assert {len(row) for row in rows} == {len(heads)} == {len(teacher) + 1}  # its name spans two columns
    for row in rows:
        found = dict(zip(names, row, strict=True))
        student, objectives = found["student"][0].lstrip("●■▲"), found["objectives"][0].replace("◆", "").strip()
        mine = [s for s in students if (s["student"], s["objectives"]) == (student, objectives)]
        hard = [s for s in students if (s["student"], s["objectives"]) == (student, "hard")]
        top1 = statistics.fmean(s["metrics"]["top1"] for s in mine)
        spread = statistics.stdev(s["metrics"]["top1"] for s in mine)
        assert found["top-1 (%)"][0] == f"{100 * top1:.2f} ± {100 * spread:.2f}"
        assert float(found["top-1 (%)"][1] or "nan") == pytest.approx(top1)
        assert int(found["MACs"][1] or 0) == mine[0]["macs"]
        text, gain = found["gain over hard (points)"]
        if objectives == "hard":
            assert (text, gain) == ("–", "")
        else:
            before = statistics.fmean(s["metrics"]["top1"] for s in hard)
            assert float(gain or "nan") == pytest.approx(100 * (top1 - before))
            assert text.split()[-1] == f"{100 * (top1 - before):+.2f}".replace("-", "−")


def test_the_front_is_marked_in_the_table(made: tuple[Evaluation, str]) -> None:
    evaluation, html = made
    rows = summarise(evaluation)
    points = [(row.macs, row.score.mean) for row in rows]
    expected = [not any(m <= a and s >= b and (m, s) != (a, b) for m, s in points) for a, b in points]
    marked = ["◆" in row[1][0] for row in Table(html, "table").rows[2:]]
    assert marked == expected
    assert any(expected)


def test_what_the_charts_move_is_said_where_it_happened() -> None:
    said = "are drawn a few pixels beside each other"
    for students, sets, moved in (
        (["resnet20"], ["hard", "kd"], True),
        (["resnet20", "resnet8x4"], ["hard"], False),
        ([f"s{n}" for n in range(21)], ["hard", "kd"], False),  # 42 rows: too many for it
    ):
        evaluation, _ = experiment(students, sets, 1)
        assert (said in page(Findings(evaluation, [], ""))) == moved


def exported(folder: Path, evaluation: Evaluation, top1: float, split: str = "test") -> None:
    first = evaluation.students[0]
    path = folder / "exports" / first.student / first.objectives / f"seed-{first.seed}" / "export.json"
    path.parent.mkdir(parents=True)
    sizes = {"student": 1_000_000, "onnx": 900_000, "onnx-int8": 250_000}
    formats = [
        {"format": name, "bytes": size, "top1": top1, "latency_ms": {"1": 0.5, "32": 9.0}, "made": "x"}
        for name, size in sizes.items()
    ]
    path.write_text(json.dumps({"student": "a", "split": split, "threads": 2, "formats": formats}))


def test_exports_are_shown_with_bytes_and_latency(tmp_path: Path) -> None:
    evaluation, histories = experiment(["resnet20"], ["hard", "kd"], 1)
    top1 = evaluation.students[0].metrics.top1
    assert top1 is not None
    exported(tmp_path, evaluation, top1)
    exports = read_exports(tmp_path, evaluation)
    assert not exports[0].stale
    html = page(Findings(evaluation, histories, "", exports))
    heads, _, *rows = Table(html, "table").rows
    assert heads[-1][0] == "smallest export (bytes)"
    assert [row[-1] for row in rows] == [("250 kB (onnx-int8)", "250000"), ("–", "")]
    assert "No student is exported yet" not in html
    assert "milliseconds for one image" in html


def test_exports_of_another_student_are_named_and_not_drawn(tmp_path: Path) -> None:
    evaluation, histories = experiment(["resnet20"], ["hard"], 1)
    exported(tmp_path, evaluation, 0.1)
    exports = read_exports(tmp_path, evaluation)
    assert exports[0].stale
    html = page(Findings(evaluation, histories, "", exports))
    assert "Exports of another student" in html
    assert "milliseconds for one image" not in html
    (tmp_path / "exports/resnet20/hard/seed-0/export.json").write_text("[]")
    with pytest.raises(DataError, match="not what `pipeline export` writes"):
        read_exports(tmp_path, evaluation)


@pytest.mark.parametrize("split", ["test", "val"])
def test_exports_of_other_weights_are_told_though_their_accuracy_is_the_same(tmp_path: Path, split: str) -> None:
    evaluation, _ = experiment(["resnet20"], ["hard"], 1)
    top1 = evaluation.students[0].metrics.top1
    assert top1 is not None
    exported(tmp_path, evaluation, top1, split)
    table = tmp_path / "exports/resnet20/hard/seed-0/export.json"
    folder = tmp_path / "students/resnet20/hard/seed-0"
    folder.mkdir(parents=True)
    (folder / "model.json").write_bytes(b"{}")
    (folder / "student.safetensors").write_bytes(b"weights")
    made = hashlib.sha256(b"model.json 2\n{}student.safetensors 7\nweightshead.safetensors 0\n").hexdigest()
    table.write_text(table.read_text().replace('"made": "x"', f'"made": "{made}"', 1))
    assert [each.stale for each in read_exports(tmp_path, evaluation)] == [False]
    (folder / "student.safetensors").write_bytes(b"trained")
    assert [each.stale for each in read_exports(tmp_path, evaluation)] == [True]
    (folder / "student.safetensors").unlink()  # such as where only results were copied
    assert [each.stale for each in read_exports(tmp_path, evaluation)] == [False]


def test_accuracy_of_exports_on_another_split_is_not_shown(tmp_path: Path) -> None:
    evaluation, histories = experiment(["resnet20"], ["hard"], 1)
    exported(tmp_path, evaluation, 0.1234, split="val")
    (found,) = read_exports(tmp_path, evaluation)
    assert not found.stale
    assert {each.top1 for each in found.formats} == {None}
    html = page(Findings(evaluation, histories, "", [found]))
    assert "12.34" not in html
    assert "250 kB (onnx-int8)" in html


def test_agreement_by_neighbours_is_explained_where_a_teacher_has_no_logits() -> None:
    evaluation, histories = experiment(["tiny"], ["kd"], 1, epochs=2)
    said = "ten nearest neighbours"
    assert said not in page(Findings(evaluation, histories, ""))
    by_neighbours = [
        each.model_copy(update={"metrics": replace(each.metrics, kl=None)}) for each in evaluation.students
    ]
    headless = evaluation.model_copy(update={"students": tuple(by_neighbours)})
    assert headless.score.name == "top1"
    assert said in page(Findings(headless, histories, ""))


def test_of_many_students_the_best_have_charts_and_the_table_has_all() -> None:
    names = [f"student-{i:03}" for i in range(30)]
    evaluation, histories = experiment(names, ["hard", "kd"], 1, epochs=2)
    rows = summarise(evaluation)
    shown = shown_rows(rows, None)
    assert shown == rows
    html = page(Findings(evaluation, histories, ""))
    assert len(Table(html, "table").rows) == 2 + 60
    assert f"the {SHOWN} that lead are shown" in html
    assert html.count("<figcaption>") <= 2 * SHOWN
