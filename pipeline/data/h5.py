"""Opens HDF5 files that may come from anywhere, and reads their rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.data.h5_heap import HeapGuard, is_variable, refuse_unknown_type
from pipeline.errors import DataError, PipelineError

_CHUNK_CACHE_BYTES = 2**26  # HDF5's own megabyte is less than one chunk of many files: no reuse at all


def open_h5(path: Path) -> h5py.File:
    """Open the file for reading. Raises DataError if it is missing, no file, unreadable or not HDF5.

    Args:
        path: of the file.

    HDF5's own locks are off: a packed data set is replaced by renaming and never changed in place, and some
    network file systems have no locks.
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError:
        fix = "run `pipeline prepare-data`, or correct the path"
        raise DataError("there is no data set", where=path, fix=fix) from None
    except OSError as error:
        raise DataError("the data set cannot be read", where=path, got=error.strerror) from None
    if not h5py.is_hdf5(path):
        fix = "pack the images with `pipeline prepare-data`, and name the file that it writes"
        raise DataError("not an HDF5 file", where=path, expected="a packed data set (HDF5)", fix=fix)
    try:
        return h5py.File(path, "r", locking=False, rdcc_nbytes=_CHUNK_CACHE_BYTES)
    except OSError as error:
        fix = "the file seems to be cut off or damaged: pack it again"
        raise DataError("the HDF5 file cannot be opened", where=path, got=str(error), fix=fix) from None


_VALUES_AT_ONCE = 256
"""Values of variable length that are asked for together: a call costs more than to read a value of some kilobytes."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the errors of h5py and the HDF5 library on a damaged file into DataError, which names `path`."""
    try:
        yield
    except PipelineError:
        raise
    except (
        Exception
    ) as error:  # OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, ...: by the damage
        fix = "the file seems to be damaged: pack it again"
        raise DataError(
            "the HDF5 file cannot be read", where=path, got=str(error) or type(error).__name__, fix=fix
        ) from None


def member(group: h5py.Group, name: str | bytes, where: Path) -> Any:
    """Return `group[name]`, or None. Raises DataError for links and for data that lie in another file.

    Args:
        where: the file, for errors.

    Following links would read files that a digest or DVC knows nothing of.
    """
    links, key = group.id.links, name.encode() if isinstance(name, str) else name
    if not links.exists(key):
        return None
    full = f"{group.name.rstrip('/')}/{key.decode(errors='replace')}"
    expected, fix = "data inside the file", "copy the data into the file"
    kind = links.get_info(key).type  # h5py's own look-up would open the file that an external link names
    if kind != h5py.h5l.TYPE_HARD:
        what = f"{full} is {'a soft' if kind == h5py.h5l.TYPE_SOFT else 'an external'} link"
        raise DataError(what, where=where, expected=expected, got=f"a link to {links.get_val(key)}", fix=fix)
    value = group[name]
    if isinstance(value, h5py.Dataset) and (value.external or value.is_virtual):
        raise DataError(f"{full} lies outside the file", where=where, expected=expected, fix=fix)
    return value


def attribute(group: h5py.Group, name: str) -> str | None:
    """Return the attribute of a file or group as text, or None. Raises ValueError if it is damaged.

    Args:
        name: of the attribute.
    """
    if name not in group.attrs:
        return None
    refuse_unknown_type(group.attrs.get_id(name).get_type())
    value = group.attrs[name]
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def read_strings(dataset: h5py.Dataset, where: Path) -> list[str]:
    """Read the strings of a one-dimensional data set.

    Args:
        where: the file, for errors.
        dataset: of text, [N].

    Raises DataError if the values are no strings, or not UTF-8.
    """
    if dataset.ndim != 1 or h5py.check_string_dtype(dataset.dtype) is None:
        raise DataError(
            f"{dataset.name} does not hold strings",
            where=where,
            expected="UTF-8 strings [N]",
            got=f"{dataset.dtype} {list(dataset.shape)}",
        )
    try:
        return [value.decode() for value in dataset[:]]
    except UnicodeDecodeError:
        raise DataError(f"{dataset.name} is not UTF-8 text", where=where) from None


def read_rows(rows: h5py.Dataset | NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """Read `rows[positions]` into memory; any order, duplicates allowed.

    From HDF5, every chunk that is compressed is decompressed once, whatever the order.
    """
    if isinstance(rows, np.ndarray):
        return rows[positions]
    unique, inverse = np.unique(positions, return_inverse=True)
    scattered = len(unique) > 0 and unique[-1] - unique[0] >= len(unique)
    result = _values(rows, unique) if rows.dtype.hasobject and scattered else _blocks(rows, unique)
    return result if len(unique) == len(positions) and _ascending(positions) else result[inverse]


def _values(rows: h5py.Dataset, unique: NDArray[np.int64]) -> NDArray[Any]:
    """Read values of variable length that do not follow each other, many in one call."""
    parts = [rows[unique[start : start + _VALUES_AT_ONCE]] for start in range(0, len(unique), _VALUES_AT_ONCE)]
    return np.concatenate(parts)


def _blocks(rows: h5py.Dataset, unique: NDArray[np.int64]) -> NDArray[Any]:
    """Read runs of rows, or what is wanted of whole chunks, where these are compressed."""
    # Rows between those wanted cost nothing in a chunk that is decompressed anyway; elsewhere they do.
    whole_chunks = rows.chunks is not None and bool(rows._filters)
    group = unique // rows.chunks[0] if whole_chunks else unique - np.arange(len(unique))
    result = np.empty((len(unique), *rows.shape[1:]), rows.dtype)
    start = 0
    for end in [*(np.flatnonzero(np.diff(group)) + 1), len(unique)]:
        if start < end:
            first, last = int(unique[start]), int(unique[end - 1])
            block = rows[first : last + 1]
            result[start:end] = block if end - start == len(block) else block[unique[start:end] - first]
        start = end
    return result


def _ascending(positions: NDArray[np.int64]) -> bool:
    return bool(np.all(positions[1:] > positions[:-1]))


class LazyFile:
    """Opens an HDF5 file in every process for itself, at the first read.

    An HDF5 handle does not survive a fork, and a pickle cannot hold one: the path travels, the handle stays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp = _stamp(path)
        self._process = -1
        self._arrays: dict[str, h5py.Dataset | NDArray[Any]] = {}
        self._guards: dict[str, HeapGuard] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_stamp": self._stamp, "_process": -1, "_arrays": {}, "_guards": {}}

    def rows(self, name: str, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Read the rows at `positions` [B] of the data set `name`. Raises DataError if they cannot be read."""
        try:
            array = self._array(name)
            if name in self._guards:
                self._guards[name].refuse_endless(positions)
            return read_rows(array, positions)
        except PipelineError:
            raise
        except Exception as error:  # as in `explained`
            fix = "the file seems to be damaged: pack it again"
            raise DataError(
                f"{name} cannot be read", where=self.path, got=str(error) or type(error).__name__, fix=fix
            ) from None

    def _array(self, name: str) -> h5py.Dataset | NDArray[Any]:
        if self._process != os.getpid():
            self._arrays, self._guards, self._process = {}, {}, os.getpid()
        if name not in self._arrays:
            if _stamp(self.path) != self._stamp:
                fix = "start the run again, so that it sees one data set throughout"
                raise DataError("the data set was replaced while it was in use", where=self.path, fix=fix)
            dataset = open_h5(self.path)[name]  # a data set keeps its file open
            if is_variable(dataset):
                self._guards[name] = HeapGuard(dataset, self.path)
            self._arrays[name] = _mapped(self.path, dataset)
        return self._arrays[name]


def _mapped(path: Path, dataset: h5py.Dataset) -> h5py.Dataset | NDArray[Any]:
    """Plain arrays (packed here, they are) mapped into memory, which is many times faster for random rows."""
    offset = None if dataset.dtype.hasobject or dataset.chunks else dataset.id.get_offset()
    if offset is None or dataset.file.userblock_size:
        return dataset
    array = np.memmap(path, dataset.dtype, "r", offset, dataset.shape)
    return array.view(np.ndarray)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
