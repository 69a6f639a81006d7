"""`docs/trust.md` says what is in the report that scripts read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from store_standins import cache
from test_verify_teacher import checked

PAGE = (Path(__file__).parents[2] / "docs/trust.md").read_text()


def keys(value: Any) -> Iterator[str]:
    """The names of all fields, at any depth."""
    for each in value if isinstance(value, list) else []:
        yield from keys(each)
    for key, inner in value.items() if isinstance(value, dict) else []:
        yield key
        yield from keys(inner)


def test_every_field_is_in_the_table_and_every_row_is_a_field(tmp_path: Path) -> None:
    report = json.loads(json.dumps(checked(cache(tmp_path / "cache.zarr")).to_json()))
    table = PAGE.partition("### The report as JSON")[2].partition("\n\n##")[0]
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in table.splitlines() if line.startswith("| `")]
    assert sorted(name for row in rows for name in row) == sorted(report)
    assert {key for key in keys(report) if f"`{key}`" not in table} == set()
