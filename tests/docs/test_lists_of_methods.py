"""Pages that list what is refused name each method that is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from contracts.objective_cases import NAMES, build

from pipeline.objectives.base import Objective

DOCS = Path(__file__).resolve().parents[2] / "docs"


def listed(page: str, first: str, last: str) -> list[str]:
    """The names between backticks from one text of a page to the next of another."""
    text = (DOCS / page).read_text()
    start = text.index(first) + len(first)
    return sorted(re.findall(r"`([a-z0-9-]+)`", text[start : text.index(last, start)]))


def test_steps_that_the_host_prepares_cannot_be_recorded() -> None:
    prepared = [name for name in NAMES if type(build(name)).prepare is not Objective.prepare]
    assert listed("training.md", "objectives that prepare each step on the\nhost (", ")") == prepared


def test_methods_that_want_one_label_for_each_view() -> None:
    wanting = [name for name in NAMES if build(name).needs.labels]
    assert listed("mixing.md", "are refused by `pipeline check` and before training:", "; `ofa` and") == wanting
