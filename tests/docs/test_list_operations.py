"""docs/cache-format.md lists every view operation, in the words of its file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pipeline import plugins
from pipeline.views.config import OPERATIONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("list_operations", ROOT / "docs/list_operations.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_list_is_that_of_the_files(script: ModuleType) -> None:
    (block,) = script.BLOCK.findall((ROOT / "docs/cache-format.md").read_text())
    assert block[1] == script.listed(), "an operation says something else now: python docs/list_operations.py"


def test_every_operation_has_its_entry(script: ModuleType) -> None:
    entries = [line.split("`")[1] for line in script.listed().splitlines() if line.startswith("- ")]
    assert entries == list(plugins.names(OPERATIONS))
    assert "uniform in [0, 2 padding]" in script.listed()


def test_writing_changes_the_list_and_nothing_else(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/cache-format.md").read_text()
    monkeypatch.setattr(script, "PAGE", tmp_path / "page.md")
    script.PAGE.write_text(page.replace(script.listed(), "something else\n"))
    script.main()
    assert script.PAGE.read_text() == page
