"""Names of the package that README and the pages of docs/ use, in code and between backticks, are there."""

from __future__ import annotations

import ast
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def named(text: str) -> set[str]:
    """The dotted names that a page imports or mentions."""
    found = {match.rstrip(".") for match in re.findall(r"`(pipeline\.[A-Za-z_.]+)(?:\([^`]*\))?`", text)}
    for line in re.findall(r"^\s*(from pipeline\S* import [\w, ]+)$", text, re.MULTILINE):
        (statement,) = ast.parse(line.strip()).body
        assert isinstance(statement, ast.ImportFrom)
        found |= {f"{statement.module}.{alias.name}" for alias in statement.names}
    return found


def is_there(name: str) -> bool:
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_of_the_package_are_there(page: Path) -> None:
    assert [name for name in sorted(named(page.read_text())) if not is_there(name)] == []


def test_a_name_that_is_not_there_is_found() -> None:
    text = (
        "`pipeline.errors.nearest(name, known)` `pipeline.errors.ConfigErr`\n\n    from pipeline.plugins import lod\n"
    )
    found = sorted(named(text))
    assert found == ["pipeline.errors.ConfigErr", "pipeline.errors.nearest", "pipeline.plugins.lod"]
    assert [name for name in found if not is_there(name)] == [found[0], found[2]]
