"""Writes the tables of docs/performance.md from the results of GPUs in `benchmarks/results/`.

    python benchmarks/performance.py [--check]

A table stands between `<!-- gpu: PART -->` and `<!-- end -->`: a row for every figure that `gpu_parts/parts.py` has the
page show, and a column for every device. Results of `--smoke` are none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from gpu_parts.parts import PARTS, Part
from gpu_parts.record import figure

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "benchmarks" / "results"
NOT_YET = "not measured yet"
BLOCK = re.compile(r"(<!-- gpu: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
MACHINE = (
    "device",
    "memory",
    "driver",
    "torch",
    "cuda",
    "cudnn",
    "numba",
    "simplejpeg",
    "processor",
    "cores",
    "load",
    "date",
)


@click.command()
@click.option("--check", is_flag=True, help="Write nothing; fail if the page is another.")
def main(check: bool) -> None:
    """Write the tables."""
    text = PAGE.read_text()
    new = with_tables(text, measured(RESULTS))
    if check and new != text:
        raise click.ClickException(f"{PAGE} is not what was measured: python benchmarks/performance.py")
    if not check:
        PAGE.write_text(new)


Devices = dict[str, dict[str, Any]]
"""The content of each file, by the name of its device."""


def measured(folder: Path) -> Devices:
    """What was measured, of every device there is a file of."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {content["machine"]["device"]: content for content in contents if not content["smoke"]}


def with_tables(text: str, devices: Devices) -> str:
    """The page with its tables as they are by what was measured. Raises KeyError for a part that is none."""
    parts = {part.name: part for part in PARTS}

    def block(found: re.Match[str]) -> str:
        name = found[2]
        table = machines(devices) if name == "machines" else table_of(parts[name], devices)
        return found[1] + table + found[4]

    return BLOCK.sub(block, text)


def machines(devices: Devices) -> str:
    """What it was measured on."""
    rows = [[name, *(str(each["machine"].get(name, "-")) for each in devices.values())] for name in MACHINE]
    return _table(["", *devices], rows) if devices else f"No GPU: {NOT_YET}.\n"


def table_of(part: Part, devices: Devices) -> str:
    """The figures of a part."""
    rows = [[name, *(cell(each["parts"].get(part.name), name) for each in devices.values())] for name in part.shown]
    if devices:
        return _table([part.question, *devices], rows)
    return _table([part.question, "on a GPU"], [[*row, NOT_YET] for row in rows])


def cell(part: Mapping[str, Any] | None, name: str) -> str:
    """A figure, or why there is none."""
    if part is None:
        return NOT_YET
    if name in part["measures"]:
        return figure(part["measures"][name])
    if name in part["facts"]:
        value = part["facts"][name]
        return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    reasons = [reason for left_out, reason in part["skipped"].items() if left_out in name]
    return f"left out: {reasons[0]}" if reasons else f"{part['status']}: {part['reason'] or 'not measured'}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "".join("| " + " | ".join(each.replace("|", "/") for each in line) + " |\n" for line in lines)


if __name__ == "__main__":
    main()
