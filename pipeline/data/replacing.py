"""Which packed data sets may be replaced."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.packed import PackedDataset
from pipeline.errors import DataError


def refuse_foreign_file(path: Path) -> None:
    """Raise DataError if a file is there that was not packed here: it may be all that there is of its images."""
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
