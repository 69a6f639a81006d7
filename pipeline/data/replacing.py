"""Refuses to replace a file that Decant did not pack."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.packed import PackedDataset
from pipeline.errors import DataError


def refuse_foreign_file(path: Path) -> None:
    """Raise DataError if a file at `path` was not packed by Decant: it may be the only copy of its images."""
    if not path.exists():
        return
    try:
        packed_here = PackedDataset.open(path).origin is not None
    except DataError:  # not even a packed data set
        packed_here = False
    if not packed_here:
        raise DataError(
            "the file there was not packed by `pipeline prepare-data`, so it is not replaced",
            where=path,
            fix="set data.source: null to use it as it is, name another data.path, or move it away",
        )
