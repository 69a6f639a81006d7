"""Finds how long values of variable length in an HDF5 file are and where they lie, before the library reads them.

A thousand rows may all be the same gigabyte, and from a heap with a free space of zero bytes the HDF5 library (2.0.0)
never returns. Format: "Global Heap" and "Variable-Length" in the HDF5 File Format Specification.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_COLLECTION, _OBJECT = struct.Struct("<4sB3xQ"), struct.Struct("<HHIQ")


def _references(dataset: h5py.Dataset, path: Path) -> NDArray[np.void]:
    """Length, heap's address and index in it of every value [N], as they are stored. Raises ValueError."""
    if dataset.ndim != 1 or dataset.file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("values of variable length are stored in an unusual way")
    found = np.zeros(len(dataset), _REFERENCE)
    if dataset.chunks is None:
        if len(found):
            if (offset := dataset.id.get_offset()) is None:
                raise ValueError("values of variable length are stored in an unusual way")
            found[:] = np.fromfile(path, _REFERENCE, len(found), offset=offset + dataset.file.userblock_size)
        return found
    options = dataset.id.get_create_plist()
    filters = [options.get_filter(i)[0] for i in range(options.get_nfilters())]
    for number in range(dataset.id.get_num_chunks()):
        (start,) = dataset.id.get_chunk_info(number).chunk_offset
        mask, raw = dataset.id.read_direct_chunk((start,))
        for index in reversed(range(len(filters))):
            if not mask >> index & 1:
                raw = _undone(filters[index], raw, dataset.chunks[0])
        values = np.frombuffer(raw, _REFERENCE, dataset.chunks[0])[: len(found) - start]
        found[start : start + len(values)] = values
    return found


def _undone(number: int, raw: bytes, rows: int) -> bytes:
    if number == DEFLATE:
        return zlib.decompressobj().decompress(raw, rows * _REFERENCE.itemsize)
    if number == SHUFFLE:
        return np.frombuffer(raw, np.uint8).reshape(_REFERENCE.itemsize, -1).T.tobytes()
    raise ValueError(f"values of variable length behind filter {number}")


def refuse_unknown_type(kind: h5py.h5t.TypeID) -> None:
    """Raise ValueError for a variable length of no known kind: the HDF5 library (2.0.0) crashes on it."""
    _, _, version_and_class, bits, more = kind.encode()[:5]
    if version_and_class & 15 == h5py.h5t.VLEN and (bits & 15 > 1 or bits >> 4 > 2 or more & 15 > 1):
        raise ValueError("a variable length of no known kind")


def is_variable(dataset: h5py.Dataset) -> bool:
    """Tell whether a data set's values have lengths of their own, and lie in a heap.

    Args:
        dataset: as h5py opens it.
    """
    text = h5py.check_string_dtype(dataset.dtype)
    return h5py.check_vlen_dtype(dataset.dtype) is not None or (text is not None and text.length is None)


class HeapGuard:
    """Looks at the heaps that rows lie in before the library does. `bytes`: what all rows claim together."""

    def __init__(self, dataset: h5py.Dataset, path: Path) -> None:
        """dataset: of values of variable length. Raises ValueError if they are stored in an unusual way."""
        found = _references(dataset, path)
        self.bytes = int(found["length"].sum(dtype=np.int64))
        self._addresses: NDArray[np.uint64] = found["address"].copy()
        self._content = np.memmap(path, np.uint8, "r", dataset.file.userblock_size).data

    def refuse_endless(self, positions: NDArray[np.int64] | slice) -> None:
        """Raise ValueError unless the heaps of the rows at `positions` end."""
        for address in np.unique(self._addresses[positions]).tolist():
            if address and not _ends(self._content, address):  # an empty value is nowhere
                raise ValueError(f"the heap at {address} is damaged")


def _ends(content: memoryview, address: int) -> bool:
    place: int | None = address + _COLLECTION.size
    if address + _COLLECTION.size > len(content):
        return False
    signature, version, size = _COLLECTION.unpack_from(content, address)
    stop = address + size
    if signature != b"GCOL" or version != 1 or stop > len(content):
        return False
    while place is not None and stop - place >= _OBJECT.size:
        place = _next(content, place)
    return place is not None and place <= stop


def _next(content: memoryview, place: int) -> int | None:
    """Where the object behind that at `place` begins; None if it does not end."""
    index, _, _, size = map(int, _OBJECT.unpack_from(content, place))
    if index:
        return place + _OBJECT.size + -(-size // 8) * 8
    return place + size if size else None
