"""docs/architecture.md: the files of the way of a pixel exist, and the picture of the rooms is that of the code."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("draw_rooms", ROOT / "docs/draw_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_on_the_way_of_a_pixel_exist() -> None:
    way = PAGE.partition("## The way of a pixel")[2].partition("\n## ")[0]
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", way, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    files = re.findall(r"`((?:pipeline|stages)/[a-z_/]+\.py)`", way)
    assert len(files) >= len(steps) > 10
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert len(set(files)) == len(files)


def test_the_script_draws_and_the_committed_picture_shows_the_imports_of_the_code(
    script: ModuleType, tmp_path: Path
) -> None:
    drawn = script.draw(tmp_path / "rooms.svg")
    assert script.drawn_in(tmp_path / "rooms.svg") == drawn
    assert len(drawn) > 10
    assert script.drawn_in() == drawn, "the rooms import each other in another way now: python docs/draw_rooms.py"


def test_what_is_left_out_follows_from_what_is_drawn(script: ModuleType) -> None:
    chain = {("a", "b"), ("b", "c")}
    assert script.without_detours({*chain, ("a", "c")}) == chain
    assert script.without_detours({*chain, ("d", "c")}) == {*chain, ("d", "c")}
    assert script.floors({*chain, ("d", "c")}) == {"a": 2, "b": 1, "c": 0, "d": 1}
