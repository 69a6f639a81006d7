"""What the page shows beyond the figures, and what it says where that is not at hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from reporting_fakes import details_of, experiment
from test_page import Table

from pipeline.errors import DataError
from pipeline.reporting.details import Details, read_details
from pipeline.reporting.page import Findings, page
from pipeline.reporting.results import Evaluation


@pytest.fixture(scope="module")
def made() -> tuple[Evaluation, Details, str]:
    evaluation, histories = experiment(["resnet20"], ["hard", "kd"], 2)
    details = details_of(evaluation)
    return evaluation, details, page(Findings(evaluation, histories, "", (), details))


def test_the_table_of_classes_has_the_mean_over_seeds(made: tuple[Evaluation, Details, str]) -> None:
    _, details, html = made
    heads, *rows = Table(html, "class-table").rows
    names = [text for text, _ in heads]
    assert names[:3] == ["class", "images", "teacher (%)"]
    assert details.labels is not None
    for objectives in ("hard", "kd"):
        runs = json.loads(details.to_text())["students"]
        right = np.mean([run["right"] for run in runs if run["objectives"] == objectives], axis=0)
        column = [row[names.index(f"resnet20, {objectives} (%)")] for row in rows]
        assert [text for text, _ in column] == [f"{100 * share:.1f}" for share in right / np.asarray(details.labels)]
        assert [float(value or "nan") for _, value in column] == pytest.approx(list(right / np.asarray(details.labels)))


def test_every_section_is_there(made: tuple[Evaluation, Details, str]) -> None:
    _, details, html = made
    for name in ("calibration", "classes", "mistakes", "differences", "cache"):
        assert f'id="{name}"' in html
    assert html.count('<ul class="tiles">') == 2
    assert "321 of 2,000 images" in html
    assert "592 kB" in html  # 4 views of 1,000 samples, 148 bytes each
    label, named, count = max(
        ((a, b, n) for a, b, n in sum_of_mistakes(details, "kd")), key=lambda each: (each[2], -each[0], -each[1])
    )
    assert f'<span class="label">{details.classes[label]}</span></th><td class="name">' in html
    assert f"<td>{count / 2:.3g}</td>" in html
    assert named < len(details.classes)


def test_mistakes_that_are_not_kept_are_told_where_that_happened(made: tuple[Evaluation, Details, str]) -> None:
    evaluation, details, _ = made
    cut, whole = (
        {"right": (7, 8), "confusions": ((0, 1, kept), (1, 0, 2))} for kept in (2, 3)
    )  # of 20 images 5 are wrong, of which the first has 4
    runs = [
        each.model_copy(update={**(cut if each.objectives == "kd" else whole), "differing": None, "differences": ()})
        for each in details.students
    ]
    small = {"classes": ("cat", "dog"), "labels": (10, 10), "pictures": (), "caches": (), "teacher": None}
    html = page(Findings(evaluation, [], "", (), details.model_copy(update={**small, "students": tuple(runs)})))
    said = "Of each seed the 2 commonest pairs of classes are kept, such as 4 of 5 mistakes:"
    assert html.count(said) == 1
    assert said in html[html.index("Mistakes of resnet20, kd") :]
    assert html.count("commonest pairs of classes") == 1


def sum_of_mistakes(details: Details, objectives: str) -> list[tuple[int, int, int]]:
    sums: dict[tuple[int, int], int] = {}
    for run in details.of("resnet20", objectives):
        for label, named, count in run.confusions:
            sums[label, named] = sums.get((label, named), 0) + count
    return [(label, named, count) for (label, named), count in sums.items()]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": None, "teacher": None}, "nothing is known by class"),
        ({"teacher": None}, "What the teacher says of these images is not known"),
        ({"caches": ()}, "No cache that students learn from was at hand"),
        ({"students": ()}, "No image is seen differently"),
    ],
)
def test_what_is_missing_is_said(made: tuple[Evaluation, Details, str], changed: dict[str, object], words: str) -> None:
    evaluation, details, _ = made
    if "labels" in changed or changed == {"teacher": None}:
        plain = {"calibration": None, "right": None, "confusions": ()} if "labels" in changed else {}
        runs = [each.model_copy(update={**plain, "differing": None, "differences": ()}) for each in details.students]
        changed = {**changed, "students": tuple(runs)}
    assert words in page(Findings(evaluation, [], "", (), details.model_copy(update=changed)))


def test_details_of_another_evaluation_are_left_out_and_broken_ones_refused(
    tmp_path: Path, made: tuple[Evaluation, Details, str]
) -> None:
    evaluation, details, _ = made
    path = tmp_path / "details.json"
    assert read_details(path, evaluation) is None
    path.write_text(details.to_text())
    assert read_details(path, evaluation) == details
    assert read_details(path, evaluation.model_copy(update={"experiment": "other"})) is None
    value = json.loads(details.to_text())
    value["students"][0]["differences"][0]["picture"] = 12
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="names classes or pictures that it does not have"):
        read_details(path, evaluation)
    value["pictures"][0]["image"] = "https://example.com/a.png"
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match="image"):
        read_details(path, evaluation)


def test_hostile_names_of_classes_and_images_stay_text(made: tuple[Evaluation, Details, str]) -> None:
    evaluation, details, _ = made
    hostile = "<script>alert('x')</script>\"'&"
    changed = details.model_copy(
        update={
            "classes": (hostile, *details.classes[1:]),
            "pictures": tuple(each.model_copy(update={"id": hostile}) for each in details.pictures),
            "caches": tuple(each.model_copy(update={"path": hostile, "missing": hostile}) for each in details.caches),
        }
    )
    html = page(Findings(evaluation, [], "", (), changed))
    assert html.count("<script") == 1
    assert "<script>alert" not in html
    assert html.count("&lt;script&gt;alert") > 5
