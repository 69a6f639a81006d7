"""What is checked of a chunk when it is first read, wherever it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CacheCorrupt
from pipeline.store.encodings import name_of
from pipeline.store.format.arrays import ArraySpec, Unit
from pipeline.store.format.chunks import CRC_BYTES, check_chunk, damaged, elements_of, most_bytes
from pipeline.store.format.layout import StoreLayout
from pipeline.store.location import StorePath


def check_size(plan: StoreLayout, spec: ArraySpec, size: int, path: StorePath) -> None:
    """Raise CacheCorrupt for a chunk file of another size than one of this array can have."""
    wanted = spec.chunk_bytes + CRC_BYTES
    if not CRC_BYTES < size <= most_bytes(spec) or (plan.compression is None and size != wanted):
        raise damaged(path, expected=f"{wanted} bytes", got=f"{size} bytes")


def checked_elements(
    plan: StoreLayout,
    spec: ArraySpec,
    unit: Unit | None,
    content: NDArray[np.uint8],
    path: StorePath,
    listed: int | None,
) -> NDArray[Any]:
    """The elements of a chunk file with this content. listed: its checksum in the ledger.

    Raises CacheCorrupt if it was damaged, if it is the chunk of another view or cache, or if it says what nothing can
    be decoded from. Other values that nobody wrote are found by `verify`.
    """
    if check_chunk(content.data, path) != listed:
        raise CacheCorrupt(
            "a chunk is not the one that the teacher cache was published with",
            where=path,
            fix="if the cache was replaced meanwhile, start again; else restore it (`dvc checkout`), or make it again "
            "with `pipeline cache-teacher --replace`",
        )
    elements = elements_of(content, spec, plan.compression, path)
    signal, part = plan.parts.get(spec.name, (None, ""))
    # Indices of what there is not: a GPU that is asked for them gives up for good.
    if signal is not None and unit is not None and part and spec.dtype.kind == "u":
        rows = elements[0, : len(plan.block_of(unit))]
        if wrong := int(signal.codec.impossible_rows(part, rows).sum()):
            raise damaged(
                path, expected=f"what {name_of(signal.encoding)} writes", got=f"{wrong} rows of something else"
            )
    return elements
