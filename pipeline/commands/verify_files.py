"""Checks the files of one teacher cache, without torch, and tells what was found out about caches: `verify`."""

from __future__ import annotations

import json
from collections.abc import Sequence

from pipeline.errors import CacheError
from pipeline.inspection.files import check_files
from pipeline.inspection.report import CacheReport
from pipeline.progress import Lines
from pipeline.store.location import StorePath


def tell_of_files(path: StorePath, *, as_json: bool) -> None:
    """Check every byte of the cache at a path, of which no experiment is known.

    Args:
        path: of the cache.
        as_json: print the report for programs.

    Raises CacheError, after the report, if anything is wrong.
    """
    note = "neither views nor teacher were checked: name their experiment with --config"
    tell([CacheReport(path, None, check_files(path, Lines()), unchecked=[note])], as_json=as_json)


def tell(reports: Sequence[CacheReport], *, as_json: bool) -> None:
    """Print what was found out about caches.

    Args:
        reports: of each.
        as_json: print them for programs.

    Raises CacheError, after that, if anything is wrong.
    """
    wrong = [report for report in reports if report.problems]
    if as_json:
        print(json.dumps({"fine": not wrong, "caches": [report.to_json() for report in reports]}, indent=2))
    else:
        print("\n".join(report.text() for report in reports))
        if not wrong:
            print("nothing wrong" + (" in what was checked" if any(each.unchecked for each in reports) else ""))
    if wrong:
        raise CacheError(
            f"{len(wrong)} of {len(reports)} teacher caches cannot be trusted",
            where=", ".join(str(report.path) for report in wrong),
            fix="restore the files (`dvc checkout`), or make the cache again with `pipeline cache-teacher --replace`"
            if any(report.files.damaged for report in wrong)
            else "look for what changed since (code, versions, machine), or make the cache again",
        )
