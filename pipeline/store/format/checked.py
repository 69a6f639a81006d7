"""Checks a chunk when it is first read, from a folder or from object storage."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RESTORE_HINT, CacheCorrupt
from pipeline.store.encodings import name_of
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.chunks import CRC_BYTES, check_chunk, damaged, elements_of, most_bytes
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import StorePath


def refuse_wrong_size(layout: StoreLayout, spec: ArraySpec, size: int, path: StorePath) -> None:
    """Raise CacheCorrupt if a chunk file has a size that no chunk of the array has.

    Args:
        layout: of the store.
        spec: the array.
        size: of the file, in bytes.
        path: the file, for the error.
    """
    wanted = spec.chunk_bytes + CRC_BYTES
    if not CRC_BYTES < size <= most_bytes(spec) or (layout.compression is None and size != wanted):
        raise damaged(path, expected=f"{wanted} bytes", got=f"{size} bytes")


def checked_elements(
    layout: StoreLayout,
    spec: ArraySpec,
    unit: Unit | None,
    content: NDArray[np.uint8],
    path: StorePath,
    listed: int | None,
) -> NDArray[Any]:
    """Check the content of a chunk file, and return its elements.

    Args:
        layout: of the store.
        spec: the array.
        unit: whose chunk it is; None for an array of one chunk.
        content: uint8 [L].
        path: the file, for errors.
        listed: its checksum in the ledger; None if it has none.

    Raises CacheCorrupt if the file is damaged, if it is the chunk of another view or cache, or if it has indices that
    cannot be decoded. `pipeline verify` finds other impossible values.
    """
    if check_chunk(content.data, path) != listed:
        raise CacheCorrupt(
            "a chunk is not the one that the teacher cache was published with",
            where=path,
            fix=f"if the cache was replaced meanwhile, start again; else {RESTORE_HINT}",
        )
    elements = elements_of(content, spec, layout.compression, path)
    signal, part = layout.parts.get(spec.name, (None, ""))
    # Indices out of range: a process that reads them on a GPU cannot use the GPU afterwards.
    if signal is not None and unit is not None and part and spec.dtype.kind == "u":
        rows = elements[0, : len(layout.block_of(unit))]
        if wrong := int(signal.codec.impossible_rows(part, rows).sum()):
            raise damaged(
                path, expected=f"what {name_of(signal.encoding)} writes", got=f"{wrong} rows of something else"
            )
    return elements
