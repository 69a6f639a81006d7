from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from reporting_fakes import experiment

from pipeline.reporting.page import Findings, page
from pipeline.reporting.report import write_report
from pipeline.reporting.results import Evaluation, HistoryTable
from pipeline.reporting.styles import Styles
from pipeline.reporting.summary import summarise

HOSTILE = "<script>alert('x')</script> & \"q\" $\\frac{$ |`"
EIGHT = ("hard", "kd", "lfcc", "dkd", "sdd", "crcd", "ofd", "simkd")
VOID = {"meta", "br", "link", "img"}


class Page(HTMLParser):
    """Collects tags, ids and text, and checks that tags are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(str(value))
            if name in ("src", "href", "xlink:href", "srcset"):
                self.links.append(str(value))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text_of(evaluation: Evaluation, histories: list[HistoryTable], config: str = "data: {}\n") -> str:
    return page(Findings(evaluation, histories, config))


def test_the_report_is_written_whole_and_the_same_every_time(tmp_path: Path) -> None:
    evaluation, histories = experiment(["resnet20"])
    path = write_report(tmp_path / "a", Findings(evaluation, histories, "data: {}\n"))
    write_report(tmp_path / "b", Findings(evaluation, histories, "data: {}\n"))
    assert path == tmp_path / "a" / "report.html"
    names = {"report.html", "table.md", "summary.json", "accuracy_cost.csv", "overview.png"}
    assert {p.name for p in (tmp_path / "a").iterdir()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    with Image.open(tmp_path / "a" / "overview.png") as picture:
        assert picture.width == 1400

    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    row = summarise(evaluation)[1]
    assert summary["students"]["resnet20"]["kd"]["top1"] == row.score.mean
    assert summary["students"]["resnet20"]["kd"]["top1_spread"] == row.score.spread
    assert summary["teacher"]["top1"] == 0.72
    lines = list(csv.DictReader(io.StringIO((tmp_path / "a" / "accuracy_cost.csv").read_text())))
    assert [line["objectives"] for line in lines] == ["teacher", "hard", "kd"]
    assert (lines[0]["macs"], lines[0]["top1_spread"]) == ("127000000", "")


@pytest.fixture(scope="module")
def html() -> str:
    return text_of(*experiment(), "train: {epochs: 7}")


def test_the_page_stands_alone_and_is_well_formed(html: str) -> None:
    found = Page(html)
    assert len(found.ids) == len(set(found.ids))
    assert all(link.startswith("#") and link[1:] in found.ids for link in found.links)
    assert set(re.findall(r"url\(#([^)]*)\)", html)) <= set(found.ids)
    assert not re.search(r"@import|url\(|<script [^>]*src|<link", html)
    assert found.tags.count("script") == 1
    script = html.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html
    assert (
        found.tags.count("svg") == found.tags.count("figure") == 3 + 2 * 2
    )  # over three costs; curves of two students
    assert found.tags.count("details") == 3
    assert found.tags.count("caption") == found.tags.count("table") == 2
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html


def test_sentences_and_numbers_are_on_the_page(html: str) -> None:
    words = " ".join(" ".join(Page(html).words).split())
    assert "kd beats hard by" in words
    assert "train: {epochs: 7}" in words
    assert "teacher cifar_resnet56" in words
    assert "278 k" in words


def test_hostile_names_stay_text() -> None:
    evaluation, histories = experiment([HOSTILE, "_hidden 学生"], ["_set", HOSTILE], 2, name=HOSTILE)
    html = text_of(evaluation, histories, f"name: {HOSTILE}</pre>")
    found = Page(html)
    assert found.tags.count("script") == 1
    assert html.count("<script") == 1
    assert any(HOSTILE in word for word in found.words)
    assert "_hidden" in html


@pytest.mark.parametrize(
    ("options", "words", "absent"),
    [
        ({"students": ["a"], "seeds": 1}, "one seed cannot tell", "times the spread"),
        ({"students": ["a"], "holdout": False}, "No accuracy was measured", "holdout top-1"),
        ({"students": ["resnet8"], "sets": ["kd"]}, "nothing to compare it with", "kd beats"),
        ({"teacher": False}, "What the teacher says of these images is not known", "teacher cifar"),
        ({"students": ["a"], "epochs": 1}, "Learning curves", "nan"),
        ({"epochs": 0}, "No history of a training run is at hand", "Lines are means"),
        ({"students": ["a", "b"], "sets": EIGHT, "seeds": 2}, "8 objective sets", "nan"),
    ],
)
def test_other_experiments(options: dict[str, object], words: str, absent: str) -> None:
    evaluation, histories = experiment(**options)  # type: ignore[arg-type]
    html = text_of(evaluation, histories)
    Page(html)
    assert words in html
    assert absent not in html


def test_experiments_without_histories_have_a_report(tmp_path: Path) -> None:
    evaluation, _ = experiment()
    html = write_report(tmp_path, Findings(evaluation, [], "")).read_text()
    assert "No history of a training run is at hand" in html


def test_a_teacher_of_unknown_cost_is_a_line_without_a_star() -> None:
    evaluation, histories = experiment()
    assert evaluation.teacher is not None
    teacher = evaluation.teacher.model_copy(update={"macs": None, "parameters": None, "images_per_second": None})
    html = text_of(evaluation.model_copy(update={"teacher": teacher}), histories)
    assert "multiply-accumulates per image" in html
    assert "teacher cifar_resnet56" in html
    assert "times its" not in html


def test_every_set_has_its_own_look_and_every_student_its_marker() -> None:
    evaluation, _ = experiment(list("abcdef"), [*EIGHT, "x", "y"], 1)
    styles = Styles.of(summarise(evaluation))
    assert len({(styles.colours[s], styles.dashes[s]) for s in styles.colours}) == 10
    assert len({styles.colours[s] for s in EIGHT}) == 8
    assert len(set(styles.markers.values())) == 6
    assert styles.colours["hard"] == "#808080"
