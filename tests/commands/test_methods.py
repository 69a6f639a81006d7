from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline import plugins
from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.objectives import catalogue
from pipeline.objectives.catalogue import built_method, list_methods, method


def test_every_file_is_a_method_that_says_what_it_is():
    found = list_methods()
    assert [each.name for each in found] == list(plugins.names("pipeline.objectives.methods"))
    for each in found:
        assert ": " in each.summary, f"{each.name}: the first line is `NAME: what it compares`"
        assert len(each.summary) < 118
        assert each.summary.endswith("."), each.name


def test_what_is_read_of_files_is_what_their_code_does():
    """If `READS` of a file is missing or wrong, the difference shows the right one."""
    for name in plugins.names("pipeline.objectives.methods"):
        assert catalogue._read(name) == built_method(name)


def test_a_default_that_only_code_tells_is_not_guessed(monkeypatch: pytest.MonkeyPatch):
    for options in ("class Options(Section):\n    width: int = WIDTH", "class Options(KD.Options):\n    pass"):
        with pytest.raises(ValueError, match=r"options of another class|malformed node"):
            catalogue._written_options(ast.parse(options))
    monkeypatch.setattr(catalogue, "_written_needs", lambda code: None)
    assert method("dkd").needs == ("logits", "labels"), "built"


def test_what_is_said_of_one():
    found = method("dkd")
    assert found.needs == ("logits", "labels")
    assert found.options == {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}
    assert "arXiv 2203.08679" in found.text
    assert method("icd").needs == ("features", "head")
    assert method("mlld").needs == ("logits", "2 views of each sample")


def test_the_command_lists_all_and_shows_one():
    listed = CliRunner().invoke(main, ["methods"])
    assert listed.exit_code == 0
    for name in plugins.names("pipeline.objectives.methods"):
        assert f"  name     {name}\n" in listed.output
    one = CliRunner().invoke(main, ["methods", "sdd"])
    assert "arXiv 2403.13512" in one.output
    assert "  options  base: kd, scales: [1, 2, 4], complementary_weight: 2.0" in one.output
    as_json = json.loads(CliRunner().invoke(main, ["methods", "--json"]).output)
    assert {each["name"] for each in as_json} == set(plugins.names("pipeline.objectives.methods"))


def test_a_name_that_there_is_not():
    with pytest.raises(ConfigError, match="did you mean 'dkd'"):
        method("dkdd")


def test_help_does_not_import_torch():
    code = "import sys; from pipeline.cli import main; main(['methods', '--help'], standalone_mode=False); "
    result = subprocess.run([sys.executable, "-c", code + "assert 'torch' not in sys.modules"], capture_output=True)
    assert result.returncode == 0, result.stderr.decode()


def test_the_documentation_has_a_row_for_every_method():
    page = (Path(__file__).resolve().parents[2] / "docs" / "methods.md").read_text()
    rows = {cells[1].strip(" `"): cells for cells in (line.split("|") for line in page.splitlines()) if len(cells) == 9}
    for each in list_methods():
        assert rows[each.name][4].strip() == (", ".join(each.needs) or "-")
    assert set(rows) - {"method", "---"} == {each.name for each in list_methods()}
