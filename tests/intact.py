"""Looks whether a cache is what was written, for tests that want it intact."""

from __future__ import annotations

from pipeline.errors import CacheCorrupt
from pipeline.inspection.files import check_files
from pipeline.store.location import StorePath


def verify_files(path: StorePath | str) -> int:
    """Read the whole cache at `path` and return the number of its files. Raises CacheCorrupt for any damage."""
    report = check_files(path)
    if report.damaged:
        raise CacheCorrupt("files are damaged", where=path, got="; ".join(map(": ".join, report.damaged.items())))
    return report.files
