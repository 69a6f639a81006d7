"""Faults survived / tried, per kind: what the tests do to a cache, counted.

    python benchmarks/faults.py [--quick] [FILE ...]

Runs the tests that break something on purpose (those with the fixture `faults`), the long ones too, and prints a
table. A fault is survived if the command that met it ended with an error that names the file, or went on; if nothing
that was half written was taken for whole; and if the next run ended with the bytes of an uninterrupted one. Damage to
what is finished is survived if `verify` names it and no reader takes it for the teacher's answers. A test ends with the
first fault that it does not survive, and this command with exit code 1.

It needs the packages of the extra `dev`, and took 26 minutes on two busy cores; --quick, which leaves the
long tests out, three. FILE: tests to run instead of all, such as `tests/store/test_workers_die.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest

ROOT = Path(__file__).parents[1]
FILES = ("tests/store", "tests/data/test_hostile_files.py")


class Counting:
    """Keeps the tests that count faults, and adds up what they counted: (tried, survived) by kind."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        kept = [item for item in items if "faults" in item.fixturenames]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        found: Any = dict(report.user_properties).get("faults", {}) if report.when == "teardown" else {}
        for kind, (tried, survived) in found.items():
            before = self.counts.get(kind, (0, 0))
            self.counts[kind] = (before[0] + tried, before[1] + survived)

    def table(self) -> str:
        rows = [f"| {kind} | {survived:,} | {tried:,} |" for kind, (tried, survived) in sorted(self.counts.items())]
        return "\n".join(["| fault | survived | tried |", "| --- | ---: | ---: |", *rows])


@click.command()
@click.option("--quick", is_flag=True, help="Without the tests that take minutes.")
@click.argument("files", nargs=-1, type=click.Path(exists=True))
def main(quick: bool, files: tuple[str, ...]) -> None:
    counting = Counting()
    chosen = "not long" if quick else ""
    chosen_files = files or [str(ROOT / name) for name in FILES]
    arguments = ["-q", "-m", chosen, "--timeout=3600", f"--rootdir={ROOT}", *chosen_files]
    code = pytest.main(arguments, plugins=[counting])
    print(f"\n{counting.table()}")
    sys.exit(int(code))


if __name__ == "__main__":
    main()
