"""What `evaluate` and `report` would write over, and what they would not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from reporting_fakes import experiment

from pipeline.errors import DataError
from pipeline.reporting.ownership import REPORT_FILES, refuse_foreign_report
from pipeline.reporting.page import Findings
from pipeline.reporting.report import write_report


@pytest.mark.parametrize("name", REPORT_FILES)
def test_files_of_a_reports_names_are_in_its_way(tmp_path: Path, name: str):
    (tmp_path / name).write_text(json.dumps({"students": 3}))
    with pytest.raises(DataError, match=f"(?s)`pipeline report` did not write.*{name}.*move them away"):
        write_report(tmp_path, Findings(*experiment(["resnet20"]), ""))
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_report_is_replaced_and_others_stay_beside_it(tmp_path: Path):
    refuse_foreign_report(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("mine")
    write_report(tmp_path, Findings(*experiment(["resnet20"]), ""))
    assert {path.name for path in tmp_path.iterdir()} == {*REPORT_FILES, "notes.txt"}
    before = (tmp_path / "table.md").read_bytes()
    (tmp_path / "table.md").write_text("of an older report")
    write_report(tmp_path, Findings(*experiment(["resnet20"]), ""))
    assert (tmp_path / "table.md").read_bytes() == before
    assert (tmp_path / "notes.txt").read_text() == "mine"
