"""Compares what an array of an HDF5 file claims to hold with the size of the file, before memory is taken."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from pipeline.data.h5_heap import DEFLATE, SHUFFLE, HeapGuard, is_variable, refuse_unknown_type
from pipeline.errors import DataError

HDF5_FILTERS = {DEFLATE: "gzip", SHUFFLE: "shuffle", h5py.h5z.FILTER_FLETCHER32: "fletcher32", 32000: "lzf"}
"""Filters that come with h5py. For any other the HDF5 library would look for a plug-in and run it."""

LARGEST_CHUNK = 1 << 30
LARGEST_RATIO = 1100
"""Deflate makes at most 1 byte of 1,032."""

AT_ONCE = 64
"""What is read as a whole may take so many times the bytes of the file."""


def refuse_false_claims(dataset: h5py.Dataset, where: Path, *, at_once: bool = False) -> None:
    """Raise DataError unless the file can hold what an array claims, and reading it runs no foreign code.

    Args:
        dataset: the array.
        where: the file, for errors.
        at_once: whether it will be read as a whole, not by rows.
    """
    if dataset.shape is None:
        raise DataError(f"{dataset.name} is empty", where=where, expected="an array")
    refuse_unknown_type(dataset.id.get_type())
    options = dataset.id.get_create_plist()
    filters = [options.get_filter(i)[0] for i in range(options.get_nfilters())]
    if strange := [str(number) for number in filters if number not in HDF5_FILTERS]:
        raise DataError(
            f"{dataset.name} is written with HDF5 filter {', '.join(strange)}, which is not run",
            where=where,
            expected="no filter, or one of " + ", ".join(HDF5_FILTERS.values()),
            fix="write it anew, for instance with `h5repack -f GZIP=4`",
        )
    size, stored = where.stat().st_size, dataset.id.get_storage_size()
    variable = is_variable(dataset)
    itemsize = 16 if variable else dataset.dtype.itemsize
    claimed = _product(dataset.shape) * itemsize
    placed = stored if dataset.chunks else (dataset.id.get_offset() or 0) + claimed
    sound = (
        max(stored, placed, len(dataset)) <= size
        and claimed <= stored * (LARGEST_RATIO if filters else 1)
        and not (at_once and claimed > size * AT_ONCE)
        and not (dataset.chunks and _product(dataset.chunks) * itemsize > LARGEST_CHUNK)
        and len(set(filters)) == len(filters)
    )
    if sound and variable:
        guard = HeapGuard(dataset, where)
        sound = guard.bytes <= size
        if sound and at_once:
            guard.refuse_endless(slice(None))
    if not sound:
        raise DataError(
            f"{dataset.name} claims more than the file holds",
            where=where,
            expected=f"what {size:,} bytes can hold",
            got=f"{dataset.dtype} {list(dataset.shape)}, of which {stored:,} bytes are stored",
            fix="the file is damaged, was never filled, or is a trap: write it anew",
        )


def _product(lengths: tuple[int, ...]) -> int:
    return int(np.prod(np.array(lengths, object)))
