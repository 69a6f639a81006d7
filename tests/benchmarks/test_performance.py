"""The page about speed has the figures of the results that are there, and of pages that it refers to."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

performance = pytest.importorskip("performance")
from gpu_parts.parts import PARTS  # noqa: E402
from gpu_parts.record import part_record  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "performance.md").read_text()


def test_tables_are_those_of_what_was_measured() -> None:
    """If this fails: `python benchmarks/performance.py`."""
    assert performance.with_tables(PAGE, performance.measured(performance.RESULTS)) == PAGE


def test_every_part_has_a_table() -> None:
    assert sorted(re.findall(r"<!-- gpu: (\S+) -->", PAGE)) == sorted(["machines", *(part.name for part in PARTS)])


def test_every_command_is_of_a_file_that_is_there() -> None:
    files = set(re.findall(r"benchmarks/\w+\.py", PAGE))
    assert len(files) > 8
    assert [name for name in sorted(files) if not (ROOT / name).exists()] == []


def test_figures_are_those_of_the_pages_that_they_are_from() -> None:
    figures = re.findall(r"\[([^\[\]]*\d[^\[\]]*)\]\((\w[\w-]*\.md)#[\w-]+\)", PAGE)
    assert len(figures) > 5
    for text, page in figures:
        there = re.findall(r"\d[\d,.]*\d|\d", (ROOT / "docs" / page).read_text())
        for number in re.findall(r"\d[\d,.]*\d|\d", text):
            assert number in there, f"{number} of {text!r} is not on {page}"


def test_a_device_gets_a_column(tmp_path: Path) -> None:
    part = PARTS[0]
    lines: list[dict[str, Any]] = [
        {"measure": "bare forward", "unit": "views/s", "values": [1200.0, 1000.0, 1100.0]},
        {"skip": "rendering", "reason": "no core | was free"},
    ]
    content = {
        "machine": {"device": "A GPU", "driver": "1.2"},
        "parts": {part.name: part_record(lines, "late", "slow", 3)},
    }
    page = f"before\n<!-- gpu: {part.name} -->\nold\n<!-- end -->\n<!-- gpu: machines -->\n<!-- end -->\nafter\n"
    text = performance.with_tables(page, {"A GPU": content})
    assert "| bare forward | 1,100 [1,000, 1,200] views/s |\n" in text
    assert "| rendering, one thread | left out: no core / was free |\n" in text
    assert "| cache-teacher | late: slow |\n" in text
    assert "| driver | 1.2 |\n" in text
    assert "old" not in text
    assert performance.with_tables(text, {}).count("not measured yet") == len(part.shown) + 1
